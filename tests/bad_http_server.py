"""A real HTTP server on this machine that misbehaves in every way the crawler must survive.

Paths are registered with a behaviour; every request is kept with its time and headers.
"""

from __future__ import annotations

import gzip
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["BadServer", "Handler", "Seen"]


@dataclass(frozen=True)
class Seen:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    begin: float


class Handler(BaseHTTPRequestHandler):
    """Answers by the behaviours of its server."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        owner = self.server.owner
        headers = {name.lower(): value for name, value in self.headers.items()}
        with owner.lock:
            owner.seen.append(Seen(self.path, headers, time.monotonic()))
            owner.at_once += 1
            owner.most_at_once = max(owner.most_at_once, owner.at_once)
        try:
            owner.behaviours.get(self.path.partition("?")[0], missing)(self)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True
        finally:
            with owner.lock:
                owner.at_once -= 1

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """An honest answer; underscores in header names are dashes."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: BadServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that break off, as they should, are no news."""


Behaviour = Callable[[Handler], None]


@dataclass
class BadServer:
    """Runs while its `with` block does; `url("/x")` is where the behaviour of "/x" answers."""

    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    at_once: int = 0
    most_at_once: int = 0

    def __enter__(self) -> BadServer:
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.owner = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def secure(self, certificate: str, key: str) -> list[str]:
        """Speak TLS from now on; returns the list of server names that clients ask for."""
        names: list[str] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.sni_callback = lambda _, name, __: names.append(str(name))
        # The handshake is made by the thread of the connection, not by the one that accepts.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        return names

    @property
    def host(self) -> str:
        """`127.0.0.1:port`."""
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        """Where a behaviour answers."""
        return f"http://{self.host}{path}"

    def requests(self, path: str) -> list[Seen]:
        """What was asked of one path."""
        return [one for one in self.seen if one.path.partition("?")[0] == path]

    def text(self, path: str, text: str, kind: str = "text/html; charset=utf-8") -> None:
        """A page."""
        self.behaviours[path] = lambda handler: handler.answer(200, text.encode(), Content_Type=kind)

    def video(self, path: str, body: bytes, kind: str = "video/mp4") -> None:
        """A video, as good servers send it: with an entity tag."""
        etag = f'"{hash(body) & 0xFFFFFFFF:x}"'
        self.behaviours[path] = lambda handler: handler.answer(200, body, Content_Type=kind, ETag=etag)

    def redirect(self, path: str, target: str) -> None:
        """A redirect to anywhere."""
        self.behaviours[path] = lambda handler: handler.answer(302, Location=target)

    def first(self, path: str, status: int, then: Behaviour, times: int = 1, **headers: str) -> None:
        """A bad status for the first requests, then something else."""
        left = [times]

        def behave(handler: Handler) -> None:
            left[0] -= 1
            if left[0] >= 0:
                handler.answer(status, b"later", **headers)
            else:
                then(handler)

        self.behaviours[path] = behave

    def drip(self, path: str, body: bytes, pause: float) -> None:
        """A byte now and then, for ever."""

        def behave(handler: Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", "video/mp4")
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            for byte in body:
                handler.wfile.write(bytes([byte]))
                time.sleep(pause)

        self.behaviours[path] = behave

    def drip_head(self, path: str, pause: float) -> None:
        """Headers without an end."""

        def behave(handler: Handler) -> None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for index in range(1000):
                handler.wfile.write(f"X-{index}: y\r\n".encode())
                time.sleep(pause)

        self.behaviours[path] = behave

    def endless(self, path: str, head: bytes) -> None:
        """A body without a length that does not end by itself."""

        def behave(handler: Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", "video/mp4")
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            block = head + bytes(65536 - len(head))
            for _ in range(10_000):
                handler.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")

        self.behaviours[path] = behave

    def bomb(self, path: str, size: int, kind: str = "text/html") -> None:
        """A small body that unpacks to a large one."""
        packed = gzip.compress(bytes(size))
        self.behaviours[path] = lambda handler: handler.answer(
            200, packed, Content_Type=kind, Content_Encoding="gzip"
        )

    def cut(self, path: str, versions: list[tuple[str, bytes]], at: int, *, ranges: bool = True) -> None:
        """Bodies that end `at` a byte at the first request; versions (ETag, body) follow one another."""
        asked = [0]

        def behave(handler: Handler) -> None:
            etag, body = versions[min(asked[0], len(versions) - 1)]
            asked[0] += 1
            wanted = handler.headers.get("Range")
            if ranges and wanted and handler.headers.get("If-Range") == etag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                span = f"bytes {start}-{len(body) - 1}/{len(body)}"
                handler.answer(206, body[start:], Content_Type="video/mp4", ETag=etag, Content_Range=span)
                return
            handler.send_response(200)
            for name, value in (("Content-Type", "video/mp4"), ("ETag", etag), ("Content-Length", len(body))):
                handler.send_header(name, str(value))
            handler.end_headers()
            if asked[0] == 1:
                handler.wfile.write(body[:at])
                handler.close_connection = True
            else:
                handler.wfile.write(body)

        self.behaviours[path] = behave


def missing(handler: Handler) -> None:
    """Most servers send a page along with a 404."""
    handler.answer(404, b"<html>sorry, <a href='/video.mp4'>nothing</a></html>", Content_Type="text/html")
