"""The gallery: index.html beside the loops, from the ledger that `animate` keeps.

One static file on any fsspec URL, openable from disk too. It holds what the grid needs of each photo (about
250 bytes) and links to loops, posters and motion pictures by relative, percent-encoded paths.
"""

import datetime
import heapq
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from flows.page import link_to, picture_uri, render_page
from models.colour_wheel import colour_wheel
from storage.digest import digest_json
from storage.errors import UsageError
from storage.manifest import count_statuses, read_rows
from storage.objects import digest_object, exists, join_url, read_bytes, write_bytes
from storage.reasons import Status

__all__ = ["GalleryConfig", "GallerySummary", "gallery_items", "publish_gallery"]

LEDGER = "ledger.parquet"
PAGE = "index.html"
PICTURE_SUFFIXES = (".webp", ".avif", ".gif", ".apng", ".png")
# Suffix, how well browsers play it (less is better), what the page makes of it.
LOOP_KINDS: tuple[tuple[str, int, str], ...] = (
    (".hevc.mp4", 4, "video"),
    (".av1.mp4", 2, "video"),
    (".mp4", 0, "video"),
    (".webm", 1, "video"),
    *((suffix, 3, "picture") for suffix in PICTURE_SUFFIXES),
)
FRAMES = (5, "frames")
# Shares of the picture's diagonal per second that a viewer calls slow or fast.
GENTLE, SWIFT = 0.02, 0.08


@dataclass(frozen=True, kw_only=True, slots=True)
class GalleryConfig:
    """How the page looks.

    `title`: its heading. `max_items`: how many photos it holds at most, the newest.
    """

    title: str = "Living pictures"
    max_items: int = 20_000

    def __post_init__(self) -> None:
        if not 1 <= self.max_items <= 200_000:
            raise UsageError(
                f"max_items must be 1 to 200000, got {self.max_items}; split the library instead"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class GallerySummary:
    """Where the page is, photos in the ledger by status, how many it shows, whether it was written now."""

    page_url: str
    counts: dict[str, int]
    shown: int
    changed: bool = True


def publish_gallery(
    url: str, config: GalleryConfig | None = None, *, only_changed: bool = False
) -> GallerySummary:
    """Write index.html into a folder of loops; `only_changed` leaves a page alone that would be the same.

    Raises UsageError where `animate` has not been.
    """
    config = config or GalleryConfig()
    ledger = join_url(url, LEDGER)
    if not exists(ledger):
        raise UsageError(
            f"no ledger at {ledger}; give the folder that `stillstream animate` wrote with --out"
        )
    page_url = join_url(url, PAGE)
    made_from = {"ledger": digest_object(ledger), "config": config, "version": version("stillstream")}
    inputs = digest_json(made_from)
    if only_changed and exists(page_url) and inputs.encode() in read_bytes(page_url):
        return _unchanged(page_url, ledger, config)
    counts = {status.value: 0 for status in Status}
    newest = heapq.nlargest(
        config.max_items,
        _counted(gallery_items(read_rows(ledger), url), counts),
        key=lambda item: item.get("z", 0),
    )
    page = render_page(
        "gallery",
        title=config.title,
        data={"items": newest},
        values={
            "lead": _lead(counts, len(newest)),
            "wheel": picture_uri(colour_wheel(168)),
            "version": version("stillstream"),
            "made_on": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "inputs": inputs,
        },
    )
    write_bytes(page_url, page)
    return GallerySummary(page_url=page_url, counts=counts, shown=len(newest))


def _unchanged(page_url: str, ledger: str, config: GalleryConfig) -> GallerySummary:
    counted = count_statuses(read_rows(ledger, columns=["status"]))
    counts = {status.value: getattr(counted, status.value) for status in Status}
    return GallerySummary(
        page_url=page_url, counts=counts, shown=min(counted.attempted, config.max_items), changed=False
    )


def _counted(items: Iterable[dict[str, Any]], counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The items, counted by status as they pass: the ledger of a large library is never held whole."""
    for item in items:
        counts[item["s"]] += 1
        yield item


def gallery_items(rows: Iterable[Mapping[str, Any]], url: str) -> Iterator[dict[str, Any]]:
    """What the page needs of each ledger row, in short names (see gallery.js); empty values are left out."""
    for row in rows:
        item = {
            "n": row["photo"],
            "s": row["status"],
            "r": row.get("reason"),
            "e": row.get("message"),
            "w": row.get("width"),
            "h": row.get("height"),
            "f": row.get("frames"),
            "d": _rounded(row.get("seconds")),
            "c": row.get("category"),
            "v": _speed_class(row),
            "x": _rounded(row.get("mean_speed")),
            "a": _rounded(row.get("moving_share")),
            "q": list(row.get("warnings") or ()),
            "z": int(row["finished_at"].timestamp()) if row.get("finished_at") else 0,
            **_links(row.get("outputs") or (), url),
        }
        yield {name: value for name, value in item.items() if value not in (None, "", [], 0)}


def _links(outputs: Iterable[str], url: str) -> dict[str, str]:
    """Loop (l) and its kind (t), poster (p) and motion picture (m) among a photo's outputs."""
    links: dict[str, str] = {}
    loops: list[tuple[int, str, str]] = []
    for output in outputs:
        key = _relative(output, url)
        name = posixpath.basename(key.rstrip("/")).lower()
        if ".poster." in name:
            links["p"] = link_to(key)
        elif ".motion." in name:
            if name.endswith((*PICTURE_SUFFIXES, ".jpg")):
                links["m"] = link_to(key)
        elif not name.endswith(".json"):
            loops.append((*_loop_kind(name), key))
    if loops:
        _, kind, key = min(loops)
        links |= {"l": link_to(key), "t": kind}
    return links


def _loop_kind(name: str) -> tuple[int, str]:
    """How well browsers play a loop (less is better), and what the page makes of it."""
    return next(((rank, kind) for suffix, rank, kind in LOOP_KINDS if name.endswith(suffix)), FRAMES)


def _relative(output: str, url: str) -> str:
    root = url.rstrip("/") + "/"
    return output.removeprefix(root).lstrip("/")


def _speed_class(row: Mapping[str, Any]) -> str | None:
    """gentle, steady or swift: the mean speed as a share of the diagonal per second, at any size and rate."""
    speed, width, height = row.get("mean_speed"), row.get("width"), row.get("height")
    frames, seconds = row.get("frames"), row.get("seconds")
    if not (speed and width and height and frames and seconds):
        return None
    share = speed * (frames / seconds) / float(width**2 + height**2) ** 0.5
    return "gentle" if share < GENTLE else "swift" if share > SWIFT else "steady"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)


def _lead(counts: Mapping[str, int], shown: int) -> str:
    loops = counts["ok"]
    parts = [f"{loops:,} photo{'' if loops == 1 else 's'} in which the water, clouds and smoke move"]
    if counts["rejected"]:
        parts.append(f"{counts['rejected']:,} with nothing to animate")
    if counts["failed"]:
        parts.append(f"{counts['failed']:,} that could not be read")
    lead = ", ".join(parts) + ". Point at a picture, or open it to compare."
    total = sum(counts.values())
    return lead if shown == total else f"{lead} Of {total:,} photos the newest {shown:,} are on this page."
