"""Random access to the samples of many shards: local ones in place, remote ones through copies on disk."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from storage.digest import digest_bytes
from storage.errors import FormatError, StoreError, UsageError
from storage.locations import local_path, parse_url
from storage.objects import open_object

__all__ = ["ShardStore", "table_of_contents"]

OPEN_INDEXES = 256  # shards whose table of contents stays in memory, a few hundred bytes per sample

Members = dict[str, tuple[int, int]]


class ShardStore:
    """The members of any sample in a list of shards; safe to use from several threads.

    Copies of remote shards go to `cache` (empty: a temporary folder, removed by `close`) and take at most
    `limit` bytes there: the one used longest ago makes room. Processes may share the folder.
    """

    def __init__(self, shards: Sequence[str], *, cache: str = "", limit: int = 20_000_000_000) -> None:
        self._shards = tuple(shards)
        self._limit = limit
        self._own_cache = not cache
        self._cache = cache
        self._lock = threading.RLock()
        self._contents: OrderedDict[int, dict[str, Members]] = OrderedDict()
        self._copies: OrderedDict[int, tuple[Path, int]] = OrderedDict()

    def members(self, shard: int, key: str) -> dict[str, bytes]:
        """The members of one sample by name. Raises FormatError for a missing one, StoreError."""
        for _ in range(2):  # another process may remove a copy between looking and reading
            path = self._path(shard)
            try:
                contents = self._index(shard, path)
                if key not in contents:
                    raise FormatError(
                        f"{self._shards[shard]} holds no sample {key}; the shard is damaged or old"
                    )
                with open(path, "rb") as stream:
                    return {name: _read(stream.fileno(), *place) for name, place in contents[key].items()}
            except FileNotFoundError:
                with self._lock:
                    self._copies.pop(shard, None)
        raise FormatError(f"shard {self._shards[shard]} is missing; build the dataset again or restore it")

    def close(self) -> None:
        """Remove the temporary folder, if it was ours."""
        if self._own_cache and self._cache:
            shutil.rmtree(self._cache, ignore_errors=True)
            self._cache = ""

    def _index(self, shard: int, path: Path) -> dict[str, Members]:
        with self._lock:
            if shard in self._contents:
                self._contents.move_to_end(shard)
                return self._contents[shard]
            contents = self._contents[shard] = table_of_contents(path)
            while len(self._contents) > OPEN_INDEXES:
                self._contents.popitem(last=False)
            return contents

    def _path(self, shard: int) -> Path:
        url = self._shards[shard]
        location = parse_url(url)
        if location.is_local:
            return local_path(location)
        with self._lock:  # one download at a time: the next draws mostly want the same shard
            if shard in self._copies:
                self._copies.move_to_end(shard)
                return self._copies[shard][0]
            self._cache = self._cache or tempfile.mkdtemp(prefix="stillstream-shards-")
            path = Path(self._cache) / f"{digest_bytes(url.encode())[:32]}.tar"
            if not path.exists():
                _download(url, path)
            self._copies[shard] = (path, path.stat().st_size)
            while len(self._copies) > 1 and sum(size for _, size in self._copies.values()) > self._limit:
                _, (oldest, _) = self._copies.popitem(last=False)
                oldest.unlink(missing_ok=True)
            return path


def table_of_contents(path: Path) -> dict[str, Members]:
    """Where the members of every sample lie: {key: {name: (offset, bytes)}}.

    A damaged header is passed over block by block until the next whole one; what it stood for is missing.
    """
    size = path.stat().st_size
    contents: dict[str, Members] = {}
    with open(path, "rb") as stream:
        offset = 0
        while offset + tarfile.BLOCKSIZE <= size:
            header = _header(_read(stream.fileno(), offset, tarfile.BLOCKSIZE))
            offset += tarfile.BLOCKSIZE
            if header is None or offset + header.size > size:
                continue
            if header.isreg():
                name = header.name.rpartition("/")[2]
                contents.setdefault(name.partition(".")[0], {})[name] = (offset, header.size)
            offset += -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return contents


def _header(block: bytes) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError):  # type: ignore[attr-defined]
        return None


def _read(descriptor: int, offset: int, count: int) -> bytes:
    return os.pread(descriptor, count, offset)


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open_object(url, "rb") as source, open(partial, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        os.replace(partial, path)
    except (UsageError, FileNotFoundError) as exc:
        raise FormatError(f"shard {url} is missing; build the dataset again or restore it") from exc
    except OSError as exc:
        raise StoreError(f"cannot copy shard {url} to {path.parent}: {exc}") from exc
    finally:
        partial.unlink(missing_ok=True)
