"""The dataset of sample scenes: exact motion, still lifes that do not move, the same bytes every time."""

from pathlib import Path

import numpy as np
import pytest

from pipelines import sample_dataset
from pipelines.sample_dataset import write_sample_dataset
from pipelines.scenery.still_life import STILL_LIFES, draw_still_life
from storage.dataset_format import shard_url
from storage.shards import read_shard


@pytest.fixture
def one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing all kinds takes long; one of each sort shows the same."""
    monkeypatch.setattr(sample_dataset, "SCENES", ("river",))
    monkeypatch.setattr(sample_dataset, "STILL_LIFES", ("room",))
    monkeypatch.setattr(sample_dataset, "SIZE_HW", (96, 160))
    monkeypatch.setattr(sample_dataset, "GRID_HW", (48, 80))


@pytest.mark.usefixtures("one_kind")
def test_scenes_move_and_still_lifes_do_not(tmp_path: Path) -> None:
    info = write_sample_dataset(str(tmp_path), seeds=[100])
    samples = {
        sample.info["category"]: sample
        for sample in read_shard(shard_url(str(tmp_path), info.shards[0].name))
    }
    assert set(samples) == {"river", "still"}
    assert np.abs(samples["river"].motion_2HW).max() > 0.1
    assert samples["river"].moving_HW.any()
    assert not samples["still"].motion_2HW.any()
    assert not samples["still"].moving_HW.any()


@pytest.mark.usefixtures("one_kind")
def test_the_same_seeds_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_sample_dataset(str(tmp_path / name), seeds=[100]) for name in "ab")
    assert first.shards == second.shards


@pytest.mark.parametrize("kind", STILL_LIFES)
def test_still_lifes_differ_by_seed_and_not_by_call(kind: str) -> None:
    one = draw_still_life(kind, (64, 96), 1)
    assert one.shape == (64, 96, 3)
    assert np.array_equal(one, draw_still_life(kind, (64, 96), 1))
    assert not np.array_equal(one, draw_still_life(kind, (64, 96), 2))
