"""An HTTP proxy before a server that breaks some of the requests, the way networks and stores do."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

__all__ = ["FlakyProxy"]

# What to do with the n-th request: None passes it on, a number answers with that status, and words break it.
Plan = Callable[[int], int | str | None]


class FlakyProxy:
    """Use as a context manager; `endpoint` is its URL and `requests` counts what came."""

    def __init__(self, target: str, plan: Plan) -> None:
        self.requests = 0
        self._lock = threading.Lock()
        self._plan = plan
        self._host = urlsplit(target).netloc
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FlakyProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next_fate(self) -> int | str | None:
        with self._lock:
            self.requests += 1
            return self._plan(self.requests)

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (the handler below has its own self)
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fate = proxy.next_fate()
                if fate == "drop":
                    self.close_connection = True
                    return
                if isinstance(fate, int):
                    self._answer(fate, {}, b"<Error><Code>InternalError</Code></Error>")
                    return
                upstream = http.client.HTTPConnection(proxy._host, timeout=20)
                upstream.request(self.command, self.path, body=body, headers=dict(self.headers))
                answer = upstream.getresponse()
                data, headers = answer.read(), dict(answer.getheaders())
                upstream.close()
                self._answer(answer.status, headers, data, cut=fate == "cut")

            def _answer(
                self, status: int, headers: dict[str, str], data: bytes, *, cut: bool = False
            ) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                length = headers.get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data[: len(data) // 2] if cut else data)
                self.close_connection = self.close_connection or cut

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 (names of the base class)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        return Handler
