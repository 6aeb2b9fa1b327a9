"""Listing photos, one record each, with the names of their results decided on the way.

Two photos of one folder collide when only their suffixes differ (a.jpg, a.png). A listing is sorted within a
folder, so all that could collide come close together: a small window is looked at before a name is decided,
and neither the order of work nor the number of workers has a say. Names that differ in case alone (a.jpg,
A.JPG) would collide on many disks; the later of them is set apart, for which a hash of every name is kept.
"""

import dataclasses
import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from storage.errors import UsageError
from storage.objects import ObjectInfo, is_local, list_objects
from storage.photo import PHOTO_SUFFIXES

__all__ = ["HINTS_SUFFIX", "PhotoRecord", "has_photos", "list_photos", "name_photos"]

HINTS_SUFFIX = ".hints.json"
# A stem that ends like this would run into a result of another photo: b.poster.jpg beside b.jpg.
TAKEN_ENDINGS = (".hevc", ".av1", ".poster", ".motion", ".hints")
LONGEST_NAME_BYTES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoRecord:
    """One photo to animate: where it is, what it was when listed, and what its results are called.

    `key` is its path below the listed root, `name` the path of its results without a suffix ("" when the key
    is unsafe), `hints_url` a hints file beside it. `etag` changes when the photo or its hints do.
    """

    key: str
    url: str
    size: int
    etag: str
    name: str
    hints_url: str | None = None


def list_photos(photos: str, out: str) -> Iterator[PhotoRecord]:
    """Every photo of a file, folder, glob or prefix, streamed. Raises UsageError when there is none.

    Results of an earlier run that lie below `photos` are left out, and so are the shadow files that some
    systems put beside photos (._a.jpg). `out` must not be the folder itself: a loop could replace a photo.
    """
    target = _plain(out)
    if _plain(photos) == target:
        raise UsageError(f"results need a folder of their own, got {out} for photos and results alike")
    found = list_objects(photos, suffixes=(*PHOTO_SUFFIXES, HINTS_SUFFIX))
    records = name_photos(info for info in found if _is_photo(info, target))
    first = next(records, None)
    if first is None:
        raise UsageError(f"found no photo at {photos}; known are {', '.join(PHOTO_SUFFIXES)}")
    yield first
    yield from records


def has_photos(photos: str, out: str) -> bool:
    """Whether there is anything to list yet."""
    try:
        return next(list_photos(photos, out), None) is not None
    except UsageError:
        return False


def _plain(url: str) -> str:
    """One spelling for each place, so that results can be told from photos."""
    if not is_local(url):
        return url.rstrip("/")
    return os.path.abspath(os.path.expanduser(url.removeprefix("file://")))


def _is_photo(info: ObjectInfo, out: str) -> bool:
    if info.key.rpartition("/")[2].startswith("._"):
        return False
    return not _plain(info.url).startswith(f"{out}/")


def name_photos(found: Iterable[ObjectInfo]) -> Iterator[PhotoRecord]:
    """Records of sorted objects, with names that differ by more than case."""
    taken: set[int] = set()
    for record in _name_groups(found):
        folded = _folded(record.name)
        if record.name and folded in taken:
            record = dataclasses.replace(record, name=f"{record.name}-{_digest(record.key)}")
        taken.add(folded)
        yield record


def _folded(name: str) -> int:
    """A hash that is equal for names that a disk may take for one: by case, or by how accents are encoded."""
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    encoded = plain.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def _name_groups(found: Iterable[ObjectInfo]) -> Iterator[PhotoRecord]:
    """Group sorted objects by what could collide and name each group when it is complete."""
    open_groups: list[tuple[str, list[ObjectInfo]]] = []
    for info in found:
        prefix = _group_prefix(info.key)
        # A folder a.d/ may be listed between a.avif and a.jpg; its keys begin like the group around it.
        while open_groups and not info.key.startswith(open_groups[-1][0]):
            yield from _name_group(open_groups.pop()[1])
        if not open_groups or open_groups[-1][0] != prefix:
            open_groups.append((prefix, []))
        open_groups[-1][1].append(info)
    while open_groups:
        yield from _name_group(open_groups.pop()[1])


def _group_prefix(key: str) -> str:
    """Folder and name up to its first dot: equal for all names that share a stem."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def _name_group(group: list[ObjectInfo]) -> Iterator[PhotoRecord]:
    hints = {info.key: info for info in group if info.key.lower().endswith(HINTS_SUFFIX)}
    photos = [info for info in group if info.key not in hints]
    stems = [_stem(info.key) for info in photos]
    for info, stem in zip(photos, stems, strict=True):
        beside = hints.get(info.key + HINTS_SUFFIX) or hints.get(stem + HINTS_SUFFIX)
        etag = info.etag if beside is None else f"{info.etag}+{beside.etag}"
        yield PhotoRecord(
            key=info.key,
            url=info.url,
            size=info.size,
            etag=etag,
            name=_result_name(info.key, stem, collides=stems.count(stem) > 1),
            hints_url=beside.url if beside else None,
        )


def _stem(key: str) -> str:
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0]}"


def _result_name(key: str, stem: str, *, collides: bool) -> str:
    if not _is_safe(key):
        return ""
    folder, slash, name = stem.rpartition("/")
    encoded = name.encode("utf-8", "surrogateescape")
    long = len(encoded) > LONGEST_NAME_BYTES
    if not (collides or long or not name or name.lower().endswith(TAKEN_ENDINGS)):
        return stem
    if long:
        name = encoded[:LONGEST_NAME_BYTES].decode("utf-8", "ignore")
    return f"{folder}{slash}{name}-{_digest(key)}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _is_safe(key: str) -> bool:
    """False for keys that could lead out of the output folder or that no file can be called."""
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in key:
        return False
    return not any(ord(character) < 32 or ord(character) == 127 for character in key)
