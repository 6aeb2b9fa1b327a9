"""Random access to the samples of many shards: local ones in place, remote ones through copies on disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
        self._lock = threading.Lock()
        self._downloads: dict[int, threading.Lock] = {}
        self._fetcher = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._asked: set[int] = set()
        self._is_local = [parse_url(url).is_local for url in self._shards]
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

    def fetch_ahead(self, shards: Iterable[int]) -> None:
        """Copy remote shards in the background; what fails there fails again when it is read."""
        for shard in shards:
            with self._lock:
                known = self._is_local[shard] or shard in self._copies or shard in self._asked
                self._asked |= set() if known else {shard}
            if not known:
                self._fetcher.submit(self._fetch, shard)

    def _fetch(self, shard: int) -> None:
        with contextlib.suppress(FormatError, StoreError):
            self._path(shard)
        with self._lock:
            self._asked.discard(shard)

    def close(self) -> None:
        """Stop copying, and remove the temporary folder if it was ours."""
        self._fetcher.shutdown(wait=True, cancel_futures=True)
        if self._own_cache and self._cache:
            shutil.rmtree(self._cache, ignore_errors=True)
            self._cache = ""

    def _index(self, shard: int, path: Path) -> dict[str, Members]:
        with self._lock:
            if shard in self._contents:
                self._contents.move_to_end(shard)
                return self._contents[shard]
        contents = table_of_contents(path)
        with self._lock:
            self._contents[shard] = contents
            while len(self._contents) > OPEN_INDEXES:
                self._contents.popitem(last=False)
        return contents

    def _path(self, shard: int) -> Path:
        if self._is_local[shard]:
            return local_path(parse_url(self._shards[shard]))
        with self._lock:
            downloading = self._downloads.setdefault(shard, threading.Lock())
        with downloading:  # several threads may want the same shard; others are not held up
            with self._lock:
                if shard in self._copies:
                    self._copies.move_to_end(shard)
                    return self._copies[shard][0]
                self._cache = self._cache or tempfile.mkdtemp(prefix="stillstream-shards-")
                path = Path(self._cache) / f"{digest_bytes(self._shards[shard].encode())[:32]}.tar"
            if not path.exists():
                _download(self._shards[shard], path)
            with self._lock:
                self._copies[shard] = (path, path.stat().st_size)
                self._make_room()
            return path

    def _make_room(self) -> None:
        """Remove the copies used longest ago until the rest fits; the newest one always stays."""
        while len(self._copies) > 1 and sum(size for _, size in self._copies.values()) > self._limit:
            oldest, (path, _) = self._copies.popitem(last=False)
            path.unlink(missing_ok=True)
            self._contents.pop(oldest, None)


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
