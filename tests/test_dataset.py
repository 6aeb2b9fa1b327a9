"""The loader's order depends on nothing but (seed, epoch), and damaged data costs only itself."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from drawn_dataset import write_drawn_dataset

from models.dataset import (
    Batch,
    DataConfig,
    Example,
    SampleIndex,
    SampleReader,
    ShardLoader,
    draw_weights,
    epoch_order,
    read_index,
    split_urls,
)
from storage.errors import FormatError, UsageError
from storage.objects import delete_object, list_objects, read_bytes, write_bytes
from storage.samples import Sample


def example_of(sample: Sample, rng: np.random.Generator, batch_rng: np.random.Generator) -> Example:
    """Which sample, and what was drawn for it."""
    key = np.frombuffer(sample.key.encode(), np.uint8)
    frame_HW3 = sample.frames[int(rng.integers(len(sample.frames)))]
    drawn = np.array([rng.random(), batch_rng.random(), frame_HW3.mean()])
    return {"key": key, "drawn": drawn}


def loader_for(url: str, **options: object) -> ShardLoader:
    config = options.pop("config", DataConfig(window=2))
    assert isinstance(config, DataConfig)
    reader = SampleReader(read_index(split_urls(url)), config)
    values = {"batch_size": 4, "seed": 3, **options}
    return ShardLoader(reader=reader, make_example=example_of, config=config, **values)  # type: ignore[arg-type]


def keys_of(batches: list[Batch]) -> list[str]:
    return [bytes(row).decode() for batch in batches for row in batch.tensors["key"].numpy()]


def first(loader: ShardLoader, steps: int, position: int = 0) -> list[Batch]:
    return list(islice(loader.batches(position), steps))


def same(batches: list[Batch], others: list[Batch]) -> bool:
    return all(
        one.position == other.position
        and all(one.tensors[name].equal(other.tensors[name]) for name in one.tensors)
        for one, other in zip(batches, others, strict=True)
    )


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """12 samples of 6 sources in 4 shards."""
    place = str(tmp_path_factory.mktemp("drawn"))
    write_drawn_dataset(place, sources=6, per_source=2, per_shard=3)
    return place


def test_every_epoch_draws_every_sample_once_in_another_order(url: str) -> None:
    keys = keys_of(first(loader_for(url, config=DataConfig(balance="none")), 6))
    assert Counter(keys[:12]) == Counter(keys[12:]) == Counter(set(keys))
    assert keys[:12] != keys[12:] and keys[:12] != sorted(keys[:12])


def test_order_depends_on_the_seed_alone(url: str) -> None:
    assert same(first(loader_for(url), 5), first(loader_for(url), 5))
    assert keys_of(first(loader_for(url), 5)) != keys_of(first(loader_for(url, seed=4), 5))


def test_threads_change_nothing(url: str) -> None:
    threaded = loader_for(url, config=DataConfig(window=2, workers=3))
    assert same(first(loader_for(url), 7), first(threaded, 7))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_batches_of_one_process(url: str, world_size: int) -> None:
    """Four shards, up to four ranks; and with one shard for four ranks, too (below)."""
    alone = keys_of(first(loader_for(url), 5))
    ranks = [first(loader_for(url, rank=rank, world_size=world_size), 5) for rank in range(world_size)]
    together = [key for step in zip(*ranks, strict=True) for key in keys_of(list(step))]
    assert together == alone


def test_fewer_shards_and_samples_than_ranks(tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path), sources=1, per_source=3, per_shard=10)
    ranks = [first(loader_for(str(tmp_path), batch_size=8, rank=rank, world_size=8), 6) for rank in range(8)]
    drawn = Counter(key for batches in ranks for key in keys_of(batches))
    assert len(drawn) == 3 and set(drawn.values()) == {16}  # 8 ranks × 6 steps


@pytest.mark.parametrize("stops", [(1,), (2, 5), (3, 4, 9)])
def test_resume_is_exact_again_and_again_and_with_other_ranks(url: str, stops: tuple[int, ...]) -> None:
    whole = first(loader_for(url), 12)
    resumed: list[Batch] = []
    for start, end in zip((0, *stops), (*stops, 12), strict=True):
        position = resumed[-1].position if resumed else 0
        loader = loader_for(url, config=DataConfig(window=2, workers=len(resumed) % 2))
        resumed += first(loader, end - start, position)
    assert same(whole, resumed)
    position = whole[stops[-1] - 1].position
    pairs = [first(loader_for(url, rank=rank, world_size=2), 12 - stops[-1], position) for rank in range(2)]
    assert [key for step in zip(*pairs, strict=True) for key in keys_of(list(step))] == keys_of(
        whole[stops[-1] :]
    )


def test_window_bounds_how_many_shards_are_open_at_once(tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path), sources=8, per_source=2, per_shard=2)
    index = read_index([str(tmp_path)])
    order = epoch_order(index, DataConfig(balance="none", window=2), seed=1, epoch=0)
    windows = [set(index.shard_N[order[start : start + 4]].tolist()) for start in range(0, 16, 4)]
    assert [len(window) for window in windows] == [2, 2, 2, 2]
    assert set.union(*windows) == set(range(8))


def test_balance_draws_large_sources_less_often_than_their_share(tmp_path: Path) -> None:
    big, lone = str(tmp_path / "big"), str(tmp_path / "lone")
    write_drawn_dataset(big, sources=1, per_source=16)
    write_drawn_dataset(lone, sources=4, per_source=1)  # its first source is the big one's
    index = read_index([big, lone])
    share = {
        balance: draw_weights(index, DataConfig(balance=balance))[index.source_N == index.source_N[0]].sum()
        for balance in ("none", "source")
    }
    assert share["none"] == pytest.approx(17)
    assert share["source"] == pytest.approx(20 * 17**0.5 / (17**0.5 + 3))
    counts = Counter(
        int(source)
        for epoch in range(50)
        for source in index.source_N[epoch_order(index, DataConfig(), seed=0, epoch=epoch)]
    )
    assert counts[int(index.source_N[0])] / 50 == pytest.approx(share["source"], rel=0.05)


def test_dataset_weights_set_the_mix(tmp_path: Path) -> None:
    for name, sources in (("one", 3), ("two", 9)):
        write_drawn_dataset(str(tmp_path / name), sources=sources, per_source=1)
    index = read_index(split_urls(f"{tmp_path}/one,{tmp_path}/two"))
    order = epoch_order(index, DataConfig(weights=(3.0, 1.0)), seed=0, epoch=0)
    assert len(order) == 12 and (index.dataset_N[order] == 0).sum() == 9
    with pytest.raises(UsageError, match="2 weights, one per dataset"):
        draw_weights(index, DataConfig(weights=(1.0,)))


def damage(url: str, *, shard: int) -> None:
    """Overwrite some bytes of the first frame in a shard."""
    place = list(list_objects(url, suffixes={".tar"}))[shard].url
    data = bytearray(read_bytes(place))
    inside = data.index(b"\xff\xd8\xff") + 500
    data[inside : inside + 64] = bytes(64)
    write_bytes(place, bytes(data))


def test_damaged_sample_is_skipped_and_counted_alike_everywhere(tmp_path: Path) -> None:
    url = str(tmp_path)
    keys = write_drawn_dataset(url, sources=6, per_source=2, per_shard=3)
    whole = keys_of(first(loader_for(url), 9))
    damage(url, shard=1)
    loader = loader_for(url)
    batches = first(loader, 9)
    assert len(loader.reader.skipped) == 1 and loader.reader.skipped < set(keys)
    found = keys_of(batches)
    assert all(
        one == other for one, other in zip(found, whole, strict=True) if other not in loader.reader.skipped
    )
    assert not loader.reader.skipped & set(found)
    ranks = [first(loader_for(url, rank=rank, world_size=2), 9) for rank in range(2)]
    assert [key for step in zip(*ranks, strict=True) for key in keys_of(list(step))] == found


@pytest.mark.parametrize("how", ["missing", "truncated", "random"])
def test_damaged_shard_does_not_stop_training(tmp_path: Path, how: str) -> None:
    url = str(tmp_path)
    keys = write_drawn_dataset(url, sources=6, per_source=2, per_shard=3)
    place = next(iter(list_objects(url, suffixes={".tar"}))).url
    data = read_bytes(place)
    if how == "missing":
        delete_object(place)
    elif how == "truncated":
        write_bytes(place, data[: len(data) // 2])
    else:
        write_bytes(place, np.random.default_rng(0).bytes(len(data)))
    loader = loader_for(url)
    found = keys_of(first(loader, 9))
    assert len(found) == 36
    assert set(found) | loader.reader.skipped == set(keys)
    assert 1 <= len(loader.reader.skipped) <= 3 and not set(found) & loader.reader.skipped
    assert len(loader.reader.skipped) == 3 or how == "truncated"


def test_dataset_of_nothing_but_damage_is_an_error(tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path), sources=1, per_source=2)
    delete_object(next(iter(list_objects(str(tmp_path), suffixes={".tar"}))).url)
    with pytest.raises(FormatError, match="64 samples in a row could not be used"):
        first(loader_for(str(tmp_path)), 1)


@pytest.mark.parametrize("store", ["memory", "s3"])
def test_remote_shards_come_through_a_bounded_cache(
    tmp_path: Path, url: str, store: str, request: pytest.FixtureRequest
) -> None:
    remote = "memory://loader/dataset" if store == "memory" else request.getfixturevalue("s3_url")
    for found in list_objects(url):
        write_bytes(f"{remote}/{found.key}", read_bytes(found.url))
    largest = max(found.size for found in list_objects(url, suffixes={".tar"}))
    config = DataConfig(window=2, cache=str(tmp_path / "cache"), cache_bytes=int(2.5 * largest))
    loader = loader_for(remote, config=config)
    assert same(first(loader, 7), first(loader_for(url), 7))
    copies = list((tmp_path / "cache").iterdir())
    assert 1 <= len(copies) <= 2 and sum(copy.stat().st_size for copy in copies) <= config.cache_bytes


def test_unfinished_dataset_is_refused(tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path), sources=1)
    delete_object(str(tmp_path / "dataset.json"))
    with pytest.raises(FormatError, match=r"no finished dataset: .*dataset.json is missing"):
        read_index([str(tmp_path)])


def test_index_selects_splits_and_spreads_over_sources(tmp_path: Path) -> None:
    write_drawn_dataset(str(tmp_path), sources=6, per_source=3, splits=("train", "val"))
    index = read_index([str(tmp_path)])
    training, validation = index.with_split("train"), index.with_split("val")
    assert len(training) == len(validation) == 9
    assert not set(training.source_N.tolist()) & set(validation.source_N.tolist())
    assert sorted(Counter(index.spread(8).source_N.tolist()).values()) == [1, 1, 1, 1, 2, 2]
    assert index.digest != training.digest == index.with_split("train").digest


def test_share_of_the_sources_grows_and_keeps_what_it_had(url: str) -> None:
    index = read_index([url])
    chosen = [set(index.with_source_share(share).source_N.tolist()) for share in (0.01, 0.5, 1.0)]
    assert [len(sources) for sources in chosen] == [1, 3, 6]
    assert chosen[0] < chosen[1] < chosen[2]
    assert len(index.with_source_share(0.5)) == 6
    with pytest.raises(UsageError, match="source_share must be above 0"):
        DataConfig(source_share=0)


def test_settings_are_checked(url: str) -> None:
    with pytest.raises(UsageError, match="balance must be none, source or category, got 'sources'"):
        DataConfig(balance="sources")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a batch of 4 does not divide by 3 processes"):
        loader_for(url, world_size=3)
    with pytest.raises(UsageError, match="empty"):
        split_urls(" , ")
    index = read_index([url])
    empty: SampleIndex = index.with_split("test")
    with pytest.raises(UsageError, match="no samples to load"):
        SampleReader(empty, DataConfig())
