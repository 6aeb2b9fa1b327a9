"""The shard loader: batches from WebDataset shards on disk or in object storage, in one order that never
depends on how many processes or threads read it.

    dataset URLs → SampleIndex (who is where) → epoch_order(seed, epoch) → ShardLoader → batches

The samples form one endless stream: position p is draw p % n of epoch p // n. A step of a training takes the
next B positions, and each of W ranks a W-th of them. So every rank makes the same number of steps whatever
the number of shards, and "where we are" is a single number that holds for any number of ranks. What is random
about one draw derives from (seed, epoch, draw) alone. A sample that cannot be read is counted and replaced by
a neighbour in the same order, chosen from the same numbers: on every rank, in every run, alike.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.shard_store import ShardStore
from storage.dataset_format import manifest_url, read_dataset_json, shard_url
from storage.digest import digest_json
from storage.errors import FormatError, MediaError, UsageError
from storage.manifest import read_table
from storage.samples import Sample, decode_sample

__all__ = [
    "Batch",
    "DataConfig",
    "Example",
    "MakeExample",
    "SampleIndex",
    "SampleReader",
    "ShardLoader",
    "collate",
    "draw_weights",
    "epoch_order",
    "read_index",
    "split_urls",
]

logger = logging.getLogger(__name__)

Example = dict[str, NDArray[Any]]
Balance = Literal["none", "source", "category"]

NEIGHBOURS = 256  # a replacement comes from this many draws on either side: likely in a shard that is at hand
NEAR_TRIES = 16
TRIES = 64
FETCHED_AHEAD = 512  # draws whose remote shards are copied before they are needed
MANIFEST_COLUMNS = ["key", "status", "shard", "split", "source", "category"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """How samples are drawn.

    `weights`: one per dataset URL, the shares of the draws (empty: by size). `balance`: "source" draws a
    source with n samples √n times as often as one with a single sample, instead of n times; "category" does
    the same for categories on top. `window`: samples are shuffled inside so many shards, which bounds what
    has to be at hand. `workers`: threads that read ahead. `cache`: a folder for copies of remote shards
    (empty: a temporary one), of at most `cache_bytes`. `source_share`: train on so large a part of the
    sources only, for learning curves; a larger part holds the smaller one.
    """

    weights: tuple[float, ...] = ()
    balance: Balance = "source"
    window: int = 16
    workers: int = 0
    source_share: float = 1.0
    cache: str = ""
    cache_bytes: int = 20_000_000_000

    def __post_init__(self) -> None:
        if self.balance not in ("none", "source", "category"):
            raise UsageError(f"data.balance must be none, source or category, got {self.balance!r}")
        if self.window < 1 or self.workers < 0 or self.cache_bytes < 0:
            raise UsageError(
                "data.window must be at least 1, data.workers and data.cache_bytes at least 0, got "
                f"{self.window}, {self.workers} and {self.cache_bytes}"
            )
        if not 0 < self.source_share <= 1:
            raise UsageError(f"data.source_share must be above 0 and at most 1, got {self.source_share}")
        if any(not weight > 0 for weight in self.weights):
            raise UsageError(f"data.weights must be positive, one per dataset, got {self.weights}")


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleIndex:
    """Who is where: for each of n samples its key, its shard's number, source, category, split, dataset."""

    shards: tuple[str, ...]
    shard_bytes: tuple[int, ...]
    shard_N: NDArray[np.int32]
    key_N: NDArray[np.str_]
    source_N: NDArray[np.int32]
    category_N: NDArray[np.int32]
    split_N: NDArray[np.str_]
    dataset_N: NDArray[np.int32]
    sources: tuple[str, ...]
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.key_N)

    def select(self, rows: NDArray[Any]) -> SampleIndex:
        """The index of some of the samples: a mask or row numbers."""
        return SampleIndex(
            shards=self.shards,
            shard_bytes=self.shard_bytes,
            shard_N=self.shard_N[rows],
            key_N=self.key_N[rows],
            source_N=self.source_N[rows],
            category_N=self.category_N[rows],
            split_N=self.split_N[rows],
            dataset_N=self.dataset_N[rows],
            sources=self.sources,
            categories=self.categories,
        )

    def with_split(self, *splits: str) -> SampleIndex:
        """The samples of the named splits."""
        return self.select(np.isin(self.split_N, splits))

    def with_source_share(self, share: float) -> SampleIndex:
        """The samples of a part of the sources: those whose names hash lowest, at least one."""
        present = np.unique(self.source_N).tolist()
        hashed = sorted(present, key=lambda number: digest_json(self.sources[number]))
        return self.select(np.isin(self.source_N, hashed[: max(round(share * len(present)), 1)]))

    def spread(self, count: int) -> SampleIndex:
        """At most `count` samples, the sources taken in turn: the same ones every time."""
        if count <= 0 or count >= len(self):
            return self
        turn = np.zeros(len(self), np.int64)
        seen: dict[int, int] = {}
        for row, source in enumerate(self.source_N.tolist()):
            turn[row] = seen[source] = seen.get(source, -1) + 1
        return self.select(np.sort(np.argsort(turn, kind="stable")[:count]))

    @property
    def digest(self) -> str:
        """Digest of what the order depends on: the samples, their sources and the shards they lie in."""
        return digest_json(
            [
                self.key_N.tolist(),
                self.shard_N.tolist(),
                self.source_N.tolist(),
                self.category_N.tolist(),
                self.dataset_N.tolist(),
            ]
        )


def split_urls(urls: str) -> tuple[str, ...]:
    """`--data A,B` as (A, B)."""
    found = tuple(url.strip() for url in urls.split(",") if url.strip())
    if not found:
        raise UsageError("expected the URL of a dataset, got an empty text")
    return found


def read_index(urls: Sequence[str]) -> SampleIndex:
    """Read dataset.json and the manifest of every dataset. Raises FormatError for one without its commit."""
    shards: list[str] = []
    sizes: list[int] = []
    names = ("key", "shard", "split", "source", "category", "dataset")
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for number, url in enumerate(urls):
        info = read_dataset_json(url)
        found = _ok_columns(url)
        found["shard"] = len(shards) + _numbers_of(found["shard"], [shard.name for shard in info.shards], url)
        found["dataset"] = np.full(len(found["key"]), number, np.int32)
        for name, values in columns.items():
            values.append(found[name])
        shards += [shard_url(url, shard.name) for shard in info.shards]
        sizes += [shard.bytes for shard in info.shards]
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    if len(joined["key"]) == 0:
        raise UsageError(
            f"no samples in {', '.join(urls)}: every item was rejected or failed, see its report"
        )
    order = np.lexsort((joined["key"], joined["shard"]))  # whatever the order of the manifest's rows
    joined = {name: values[order] for name, values in joined.items()}
    sources, source_N = np.unique(joined["source"], return_inverse=True)
    categories, category_N = np.unique(joined["category"], return_inverse=True)
    return SampleIndex(
        shards=tuple(shards),
        shard_bytes=tuple(sizes),
        shard_N=joined["shard"].astype(np.int32),
        key_N=joined["key"],
        source_N=source_N.astype(np.int32),
        category_N=category_N.astype(np.int32),
        split_N=joined["split"],
        dataset_N=joined["dataset"],
        sources=tuple(sources.tolist()),
        categories=tuple(categories.tolist()),
    )


def _ok_columns(url: str) -> dict[str, NDArray[Any]]:
    """The manifest's columns for the samples that are there, as arrays: a million rows fit in memory."""
    table = read_table(manifest_url(url), columns=MANIFEST_COLUMNS)
    kept = np.array(table["status"].to_pylist(), object) == "ok"
    missing = {"split": "train"}
    found = {}
    for name in MANIFEST_COLUMNS:
        values = [missing.get(name, "") if value is None else value for value in table[name].to_pylist()]
        found[name] = np.array(values, np.str_)[kept]
    return found


def _numbers_of(names_N: NDArray[Any], shards: list[str], url: str) -> NDArray[np.int64]:
    """Each sample's shard as its number in dataset.json. Raises FormatError for one that is not there."""
    known = {name: number for number, name in enumerate(shards)}
    distinct, place = np.unique(names_N, return_inverse=True)
    for name in distinct.tolist():
        if name not in known:
            raise FormatError(
                f"{url}: samples lie in shard {name!r}, which dataset.json does not list; "
                "build the dataset again"
            )
    return np.array([known[name] for name in distinct.tolist()], np.int64)[place]


def draw_weights(index: SampleIndex, config: DataConfig) -> NDArray[np.float64]:
    """How often each sample is drawn in an epoch of n draws, on average; sums to n."""
    weight_N = np.ones(len(index))
    if config.balance != "none":
        weight_N /= np.sqrt(np.bincount(index.source_N)[index.source_N])
    if config.balance == "category":
        per_category = np.bincount(index.category_N, weights=weight_N)
        weight_N /= np.sqrt(per_category[index.category_N])
    if config.weights:
        count = int(index.dataset_N.max()) + 1
        if len(config.weights) != count:
            raise UsageError(f"data.weights must name {count} weights, one per dataset, got {config.weights}")
        total = np.bincount(index.dataset_N, weights=weight_N)
        weight_N *= (np.asarray(config.weights) / total)[index.dataset_N]
    return np.asarray(weight_N * (len(index) / weight_N.sum()), np.float64)


def epoch_order(index: SampleIndex, config: DataConfig, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The n draws of one epoch as row numbers, from (seed, epoch) alone.

    Systematic resampling turns the weights into whole draws: a sample of weight w comes ⌊w⌋ or ⌈w⌉ times.
    Then the shards are permuted and the draws shuffled inside windows of `config.window` shards.
    """
    rng = np.random.default_rng((seed, epoch))
    edges = np.floor(np.cumsum(draw_weights(index, config)) + rng.random()).astype(np.int64)
    edges[-1] = len(index)  # the sum of n weights may miss n by a rounding error
    times_N = np.diff(np.minimum(edges, len(index)), prepend=0)
    draws = np.repeat(np.arange(len(index)), times_N)
    window_of_shard = rng.permutation(len(index.shards)) // config.window
    shuffled = rng.permutation(len(draws))
    return draws[shuffled][np.argsort(window_of_shard[index.shard_N[draws[shuffled]]], kind="stable")]


class SampleReader:
    """Reads any sample of an index, and counts those it cannot read in `skipped` (their keys)."""

    def __init__(self, index: SampleIndex, config: DataConfig) -> None:
        if len(index) == 0:
            raise UsageError("no samples to load; check the dataset's splits and its report")
        self.index = index
        self.skipped: set[str] = set()
        self._store = ShardStore(index.shards, cache=config.cache, limit=config.cache_bytes)
        self._lock = threading.Lock()

    def read(self, row: int) -> Sample:
        """One sample of the index. Raises FormatError."""
        number, key = int(self.index.shard_N[row]), str(self.index.key_N[row])
        return decode_sample(self._store.members(number, key))

    def example(self, row: int, make_example: Callable[[Sample], Example]) -> Example | None:
        """What `make_example` makes of a sample; None, and counted, when the sample cannot be used."""
        try:
            return make_example(self.read(row))
        except (FormatError, MediaError) as exc:
            key = str(self.index.key_N[row])
            with self._lock:
                known = key in self.skipped
                self.skipped.add(key)
            if not known:
                shard = self.index.shards[int(self.index.shard_N[row])]
                logger.warning("skipped sample %s of %s: %s", key, shard, exc)
            return None

    def fetch_ahead(self, shards: Iterable[int]) -> None:
        """Start copying remote shards that are not at hand yet."""
        self._store.fetch_ahead(shards)

    def close(self) -> None:
        """Remove the temporary copies of remote shards."""
        self._store.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One rank's part of a step; `position` is where the stream goes on after it."""

    tensors: dict[str, Tensor]
    position: int


class MakeExample(Protocol):
    """Turns a sample into arrays. `batch_rng` draws for a whole batch, `rng` for this example alone."""

    def __call__(
        self, sample: Sample, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Example: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardLoader:
    """Batches of examples, drawn from a reader's index and stacked to tensors.

    `batch_size` is that of all ranks together. `make_example` raises FormatError or MediaError for a sample
    it cannot use.
    """

    reader: SampleReader
    make_example: MakeExample
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    config: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            raise UsageError(
                f"a batch of {self.batch_size} does not divide by {self.world_size} processes; change either"
            )

    def batches(self, position: int = 0) -> Iterator[Batch]:
        """Endless batches from a position of the stream, with read-ahead where `config.workers` > 0."""
        share = self.batch_size // self.world_size
        orders = lru_cache(maxsize=2)(self._order)  # a batch may reach into the next epoch

        def examples(start: int) -> list[Callable[[], Example]]:
            draws = range(start + self.rank * share, start + (self.rank + 1) * share)
            return [partial(self._example, draw, start, orders) for draw in draws]

        def starts() -> Iterator[int]:
            for start in range(position, 2**62, self.batch_size):
                self._fetch_ahead(start, orders)
                yield start

        ahead = 2 + 2 * self.config.workers // share
        made_ahead = cast(
            Generator[tuple[int, list[Example]]], _made_ahead(starts(), examples, self.config.workers, ahead)
        )
        with closing(made_ahead):
            for start, made in made_ahead:
                yield Batch(tensors=collate(made), position=start + self.batch_size)

    def _fetch_ahead(self, start: int, orders: Callable[[int], NDArray[np.int64]]) -> None:
        """Have the shards of the draws to come copied here, as far as half the cache holds them."""
        index = self.reader.index
        epoch, draw = divmod(start, len(index))
        coming = index.shard_N[orders(epoch)[draw : draw + FETCHED_AHEAD]]
        shards, room = [], self.config.cache_bytes // 2
        for shard in dict.fromkeys(coming.tolist()):
            room -= index.shard_bytes[shard]
            if room < 0:
                break
            shards.append(shard)
        self.reader.fetch_ahead(shards)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return epoch_order(self.reader.index, self.config, seed=self.seed, epoch=epoch)

    def _example(self, position: int, start: int, orders: Callable[[int], NDArray[np.int64]]) -> Example:
        """The example at one position of the stream; a neighbour's where the sample cannot be used."""
        epoch, draw = divmod(position, len(self.reader.index))
        order = orders(epoch)
        row = int(order[draw])
        for attempt in range(TRIES):
            make = partial(
                self.make_example,
                rng=np.random.default_rng((self.seed, epoch, draw, attempt)),
                batch_rng=np.random.default_rng((self.seed, start)),
            )
            example = self.reader.example(row, make)
            if example is not None:
                return example
            near = attempt < NEAR_TRIES
            low, high = (draw - NEIGHBOURS, draw + NEIGHBOURS) if near else (0, len(order))
            other = np.random.default_rng((self.seed, epoch, draw, attempt, 1))
            row = int(order[other.integers(max(low, 0), min(high, len(order)))])
        raise FormatError(
            f"{TRIES} samples in a row could not be used, the last one {self.reader.index.key_N[row]}; "
            "check the dataset's shards"
        )


def _made_ahead(
    starts: Iterator[int], jobs: Callable[[int], list[Callable[[], Example]]], workers: int, ahead: int
) -> Iterator[tuple[int, list[Example]]]:
    """Do the jobs of every start in order, with threads some batches ahead, or at once without threads."""
    if workers == 0:
        for start in starts:
            yield start, [job() for job in jobs(start)]
    pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
    waiting: deque[tuple[int, list[Future[Example]]]] = deque()
    try:
        for start in starts:
            waiting.append((start, [pool.submit(job) for job in jobs(start)]))
            if len(waiting) > ahead:
                first, futures = waiting.popleft()
                yield first, [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Stack examples to one dictionary of tensors."""
    return {name: torch.from_numpy(np.stack([each[name] for each in examples])) for name in examples[0]}
