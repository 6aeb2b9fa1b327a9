"""Videos behind pages that only yt-dlp understands; an optional extra, used for addresses and facts only.

yt-dlp reads the page by its own means; the file that it names is then fetched like every other link.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from pipelines.links import Link
from storage.errors import FetchError, UsageError
from storage.reasons import Reason
from storage.web_address import public_url

__all__ = ["YTDLP_SCHEME", "list_ytdlp"]

YTDLP_SCHEME = "ytdlp:"
OPTIONS = {
    "quiet": True,
    "no_warnings": True,
    "skip_download": True,
    # One file over plain HTTP: streams in pieces are not what the fetcher takes.
    "format": "best[protocol^=http]",
}


def list_ytdlp(url: str) -> Iterator[Link]:
    """The videos of a page. Raises UsageError when yt-dlp is not installed, FetchError when it finds none."""
    try:
        ytdlp: Any = importlib.import_module("yt_dlp")
    except ModuleNotFoundError as exc:
        raise UsageError(
            "pages are read by yt-dlp, which is not installed; run `pip install 'stillstream[ytdlp]'`"
        ) from exc
    try:
        with ytdlp.YoutubeDL(OPTIONS) as reader:
            info = reader.extract_info(url, download=False) or {}
    except ytdlp.utils.YoutubeDLError as exc:
        raise FetchError(
            f"yt-dlp cannot read {public_url(url)}: {str(exc)[:300]}", reason=Reason.HTTP_ERROR
        ) from exc
    for entry in info.get("entries") or [info]:
        if entry and entry.get("url"):
            yield Link(
                url=entry["url"],
                licence=entry.get("license"),
                author=entry.get("uploader"),
                title=entry.get("title"),
                page=entry.get("webpage_url"),
            )
