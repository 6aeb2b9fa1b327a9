"""URLs of the web as they may be kept and compared: without passwords, in one spelling.

What a row, a log or an error shows went through `public_url`; what tells two links apart is `canonical_url`.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from storage.errors import RejectedError
from storage.reasons import Reason

__all__ = ["canonical_url", "host_of", "is_web_url", "join_link", "public_url", "split_url"]

DEFAULT_PORTS = {"http": 80, "https": 443}
TRACKING = re.compile(r"(utm_\w+|fbclid|gclid|mc_cid|mc_eid)$", re.IGNORECASE)
SECRET = re.compile(
    r"(.*(token|signature|secret|password|passwd|apikey|api_key|credential|authorization).*"
    r"|sig|key|pwd|auth|jwt|session|sessionid|x-amz-.*|x-goog-.*|key-pair-id|policy|awsaccesskeyid)$",
    re.IGNORECASE,
)
HIDDEN = "hidden"


def is_web_url(url: str) -> bool:
    """Whether a URL is http or https."""
    return url[:8].lower().startswith(("http://", "https://"))


def split_url(url: str) -> SplitResult:
    """A web URL taken apart; raises RejectedError when it is none, has no host, or makes no sense."""
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError as exc:
        raise RejectedError(f"not a web address: {exc}", reason=Reason.UNSUPPORTED) from exc
    if parts.scheme.lower() not in DEFAULT_PORTS or not parts.hostname:
        raise RejectedError(
            f"expected an http or https address with a host, got scheme {parts.scheme!r}",
            reason=Reason.UNSUPPORTED,
        )
    return parts


def host_of(url: str) -> str:
    """`host:port` in lower case, the port always told; the unit of politeness."""
    parts = split_url(url)
    return f"{_bare_host(parts)}:{parts.port or DEFAULT_PORTS[parts.scheme.lower()]}"


def public_url(url: str) -> str:
    """The URL without user, password and fragment, and with the values of secret parameters hidden.

    Other URLs than the web's lose their user and password as well.
    """
    try:
        parts = urlsplit(url.strip())
        netloc = parts.netloc.rpartition("@")[2]
    except ValueError:
        return re.sub(r"//[^/]*@", "//", url.partition("?")[0])
    if not is_web_url(url):
        return urlunsplit(parts._replace(netloc=netloc)) if "@" in parts.netloc else url
    return urlunsplit(parts._replace(netloc=netloc, query=_hide(parts.query), fragment=""))


def canonical_url(url: str) -> str:
    """One spelling for all that lead to the same place: case, ports, tracking and secrets do not matter."""
    if not is_web_url(url):
        return public_url(url)
    try:
        parts = split_url(url)
    except RejectedError:
        return public_url(url)
    scheme = parts.scheme.lower()
    port = "" if parts.port in (None, DEFAULT_PORTS[scheme]) else f":{parts.port}"
    pairs = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if not _is_noise(pair[0])]
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    return urlunsplit((scheme, f"{_bare_host(parts)}{port}", path, urlencode(sorted(pairs)), ""))


def join_link(base: str, link: str) -> str | None:
    """A link found on a page as an absolute web URL without fragment; None when it leads elsewhere."""
    try:
        joined = urljoin(base, link.strip())
        split_url(joined)
    except (ValueError, RejectedError):
        return None
    return joined.partition("#")[0]


def _bare_host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    return f"[{host}]" if ":" in host else host


def _is_noise(name: str) -> bool:
    return bool(TRACKING.match(name) or SECRET.match(name))


def _hide(query: str) -> str:
    if not any(SECRET.match(pair.partition("=")[0]) for pair in query.split("&")):
        return query
    pairs = parse_qsl(query, keep_blank_values=True)
    return urlencode([(name, HIDDEN if SECRET.match(name) else value) for name, value in pairs])
