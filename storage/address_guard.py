"""Connections to public addresses only: resolve, check, and connect to the very address that was checked.

A name is resolved once per connection and the socket goes to that answer, so a resolver that changes its
mind gains nothing. The TLS server name stays the host of the URL. Every read also ends at one deadline, so
that a server that sends a byte now and then cannot hold a worker.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import httpcore

from storage.errors import RejectedError
from storage.reasons import Reason

__all__ = ["AllowedHosts", "GuardedBackend", "Resolver", "is_public_address", "system_resolver"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], list[str]]

NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Public by number, yet answered inside a cloud with what only its machines may know.
METADATA = {ipaddress.ip_address("168.63.129.16")}


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Hosts that may have any address, each as `host` or `host:port`."""

    names: frozenset[str] = frozenset()

    def __contains__(self, endpoint: tuple[str, int]) -> bool:
        host, port = endpoint[0].strip("[]").lower().rstrip("."), endpoint[1]
        spelled = f"[{host}]" if ":" in host else host
        return bool({host, spelled, f"{spelled}:{port}"} & self.names)

    @classmethod
    def of(cls, names: Iterable[str]) -> AllowedHosts:
        """From what a person wrote."""
        return cls(frozenset(name.strip().lower() for name in names if name.strip()))


def is_public_address(text: str) -> bool:
    """Whether an IP address belongs to the public Internet, also when IPv6 only wraps an IPv4 address.

    Loopback, private, link-local, shared, multicast, reserved and metadata addresses do not; nor do
    unique local ones. Mapped, compatible, NAT64, 6to4 and Teredo forms are judged by what they wrap.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(_is_public(one) for one in (address, *_wrapped(address)))


def system_resolver(host: str, port: int) -> list[str]:
    """All addresses of a host, as the system answers."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in found))


class GuardedBackend(httpcore.NetworkBackend):
    """Opens connections for httpcore; `deadline` (seconds of time.monotonic) bounds all of them."""

    def __init__(self, allowed: AllowedHosts, resolve: Resolver = system_resolver) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._sockets = httpcore.SyncBackend()
        self.deadline = float("inf")

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first of a host's addresses that answers.

        Raises RejectedError (private_address) before a packet is sent when any address is not public.
        """
        addresses = self._checked_addresses(host, port)
        for index, address in enumerate(addresses):
            try:
                stream = self._sockets.connect_tcp(
                    address, port, self.remaining(timeout), local_address, socket_options
                )
                return _BoundedStream(stream, self)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if index == len(addresses) - 1:
                    raise
        raise httpcore.ConnectError(f"{host} has no address")

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Never: a web URL names no socket of this machine."""
        raise httpcore.UnsupportedProtocol("sockets of this machine are no web address")

    def remaining(self, timeout: float | None) -> float:
        """The time an action may take: its own limit, and not beyond the deadline."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for this link is over")
        return left if timeout is None else min(timeout, left)

    def _checked_addresses(self, host: str, port: int) -> list[str]:
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError) as exc:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {exc}") from exc
        if (host, port) in self._allowed:
            return addresses
        if any(not is_public_address(address) for address in addresses):
            # Which address it was is nobody's business who can only write links.
            raise RejectedError(
                f"{host}:{port} has an address that is not public; if it is yours, allow it by name",
                reason=Reason.PRIVATE_ADDRESS,
            )
        return addresses


class _BoundedStream(httpcore.NetworkStream):
    """A connection whose every step ends at the backend's deadline."""

    def __init__(self, stream: httpcore.NetworkStream, backend: GuardedBackend) -> None:
        self._stream = stream
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._backend.remaining(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._backend.remaining(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, self._backend.remaining(timeout))
        return _BoundedStream(secured, self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _is_public(address: IPAddress) -> bool:
    if address in METADATA or address.is_multicast or address.is_unspecified:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        # A wrapping form is only as public as what it wraps, which is judged beside it.
        return bool(_wrapped(address)) or (
            address.is_global and not address.is_site_local and not address.is_reserved
        )
    return address.is_global and not address.is_reserved


def _wrapped(address: IPAddress) -> list[IPAddress]:
    """The IPv4 addresses inside an IPv6 one."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address.sixtofour is not None:
        return [address.sixtofour]
    if address.teredo is not None:
        return list(address.teredo)
    if address in NAT64 or (address.packed[:12] == bytes(12) and int(address) > 1):
        return [ipaddress.IPv4Address(address.packed[12:])]
    return []
