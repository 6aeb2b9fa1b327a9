"""Links to videos and what is said about them, and which licences a person accepts."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from storage.errors import ItemError
from storage.video_input import VIDEO_SUFFIXES

__all__ = ["BadSource", "Found", "Link", "has_video_suffix", "licence_accepted", "licence_name"]

CREATIVE_COMMONS = re.compile(r"creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)(?:/(\d\.\d))?")
PUBLIC_DOMAIN = {"pd", "public-domain", "publicdomain", "cc-mark", "cc-pdm", "public-domain-mark"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A video that may be fetched, and what its source says about it."""

    url: str
    licence: str | None = None
    author: str | None = None
    title: str | None = None
    page: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BadSource:
    """A page, feed or list on the way to videos that could not be used; becomes a row like any other."""

    url: str
    error: ItemError


Found = Link | BadSource


def has_video_suffix(url: str) -> bool:
    """Whether the path of a URL ends like a video's."""
    try:
        path = urlsplit(url).path
    except ValueError:
        return False
    return PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES


def licence_name(text: str | None) -> str | None:
    """A licence in one spelling: `CC BY-SA 4.0` and its address are both `cc-by-sa-4.0`."""
    if not text or not text.strip():
        return None
    lower = text.strip().lower()
    if found := CREATIVE_COMMONS.search(lower):
        code, version = found.group(1), found.group(2)
        if code == "mark":
            return "public-domain"
        name = "cc0" if code == "zero" else f"cc-{code}"
        return f"{name}-{version}" if version else name
    name = re.sub(r"[\s_/-]+", "-", lower).strip("-").replace("cc-0", "cc0").replace("cc-zero", "cc0")
    return "public-domain" if name in PUBLIC_DOMAIN else name


def licence_accepted(licence: str | None, accepted: Collection[str]) -> bool:
    """Whether a licence is on the list; `cc-by` accepts every version of it, but not `cc-by-nc`.

    An empty list accepts everything; on any other list, unknown licences are not.
    """
    if not accepted:
        return True
    name = licence_name(licence)
    if name is None:
        return False
    for entry in accepted:
        wanted = licence_name(entry)
        if wanted and (name == wanted or re.fullmatch(rf"{re.escape(wanted)}-\d.*", name)):
            return True
    return False
