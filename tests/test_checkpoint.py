"""Checkpoints come back as they were written, and nothing else passes for one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from models.checkpoint import (
    CHECKPOINT_VERSION,
    find_checkpoint,
    load_checkpoint,
    load_motion_network,
    read_header,
    save_checkpoint,
    weights_digest,
)
from models.configs import debug
from models.motion_network import MotionNetwork
from storage.errors import FormatError, UsageError
from storage.objects import exists, read_bytes, write_bytes


@pytest.fixture(scope="module")
def network() -> MotionNetwork:
    torch.manual_seed(1)
    return MotionNetwork(debug("motion").network).eval()


def rewrite(path: Path, **changes: Any) -> None:
    """The same file with another header."""
    checkpoint = load_checkpoint(str(path))
    header = {**read_header(str(path)), **changes}
    path.write_bytes(save(checkpoint.tensors, metadata={"stillstream": json.dumps(header)}))


@pytest.mark.parametrize("url", ["{tmp}/run/best.safetensors", "memory://checkpoints/motion.safetensors"])
def test_network_comes_back_with_its_weights(network: MotionNetwork, tmp_path: Path, url: str) -> None:
    url = url.format(tmp=tmp_path)
    save_checkpoint(url, network.state_dict(), network.config, "motion", {"step": 7})
    loaded = load_motion_network(url)
    assert loaded.config == network.config
    assert load_checkpoint(url).metadata == {"step": 7}
    photo = torch.rand(1, 3, 64, 96)
    assert torch.equal(loaded(photo).moving_logit_B1HW, network(photo).moving_logit_B1HW)


def test_half_precision_halves_the_file_and_keeps_the_prediction(
    network: MotionNetwork, tmp_path: Path
) -> None:
    whole, half = str(tmp_path / "whole.safetensors"), str(tmp_path / "half.safetensors")
    save_checkpoint(whole, network.state_dict(), network.config, "motion")
    save_checkpoint(half, network.state_dict(), network.config, "motion", half=True)
    assert len(read_bytes(half)) < 0.65 * len(read_bytes(whole))
    photo = torch.rand(1, 3, 64, 96)
    heads, expected = load_motion_network(half)(photo), network(photo)
    assert heads.moving_logit_B1HW.dtype == torch.float32
    assert torch.allclose(heads.moving_logit_B1HW, expected.moving_logit_B1HW, atol=1e-2)


def test_header_of_any_length_is_read(tmp_path: Path) -> None:
    """Its lowest byte comes first in the file and must not be taken for the mark of another format."""
    lowest = set()
    for length in range(0, 260, 8):
        url = str(tmp_path / f"{length}.safetensors")
        save_checkpoint(url, {"weight": torch.ones(2)}, {}, "motion", {"note": "x" * length})
        lowest.add(read_bytes(url)[0])
        assert load_checkpoint(url).tensors["weight"].tolist() == [1, 1]
    assert 0x80 in lowest


class Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FormatError, match="pickle.*expected safetensors"):
        load_motion_network(str(path))
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(FormatError, match="pickle.*expected safetensors"):
        load_motion_network(str(path))
    assert not (tmp_path / "exploded").exists()


def test_newer_version_is_refused(network: MotionNetwork, tmp_path: Path) -> None:
    path = tmp_path / "new.safetensors"
    save_checkpoint(str(path), network.state_dict(), network.config, "motion")
    rewrite(path, format_version=CHECKPOINT_VERSION + 1)
    with pytest.raises(FormatError, match=r"version 2, expected at most 1; upgrade"):
        load_checkpoint(str(path))


def test_other_kind_is_refused(network: MotionNetwork, tmp_path: Path) -> None:
    path = tmp_path / "animator.safetensors"
    save_checkpoint(str(path), network.state_dict(), network.config, "animator")
    with pytest.raises(FormatError, match="'motion', got 'animator'"):
        load_motion_network(str(path))


def test_tensors_that_do_not_fit_are_named(network: MotionNetwork, tmp_path: Path) -> None:
    url = str(tmp_path / "odd.safetensors")
    tensors = dict(network.state_dict())
    tensors["heads.bias"] = torch.zeros(5)
    save_checkpoint(url, tensors, network.config, "motion")
    with pytest.raises(FormatError, match=r"heads\.bias must be \(\d+,\), got \(5,\)"):
        load_motion_network(url)
    del tensors["heads.bias"]
    tensors["extra"] = torch.zeros(1)
    save_checkpoint(url, tensors, network.config, "motion")
    with pytest.raises(FormatError, match=r"heads\.bias is missing; extra is not expected"):
        load_motion_network(url)


def test_configuration_that_does_not_fit_is_refused(network: MotionNetwork, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_checkpoint(str(path), network.state_dict(), network.config, "motion")
    config = read_header(str(path))["config"]
    rewrite(path, config={**config, "depth": 3})
    with pytest.raises(FormatError, match="has no depth; known: .*backbone"):
        load_motion_network(str(path))
    rewrite(path, config={**config, "bins": 2})
    with pytest.raises(FormatError, match="refuses its values: bins must be 8 to 64"):
        load_motion_network(str(path))


@pytest.mark.parametrize("cut", [0, 4, 100, 20_000])
def test_truncated_file_is_refused(network: MotionNetwork, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.safetensors"
    save_checkpoint(str(path), network.state_dict(), network.config, "motion")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FormatError, match="cut"):
        load_checkpoint(str(path))


def test_safetensors_of_others_and_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(save({"weight": torch.zeros(3)}))
    with pytest.raises(FormatError, match="not a Stillstream checkpoint"):
        load_checkpoint(str(path))
    path.write_text("<html>404 not found</html>")
    with pytest.raises(FormatError, match="not a safetensors file"):
        load_checkpoint(str(path))


def test_checkpoint_urls_lead_to_files(network: MotionNetwork, tmp_path: Path) -> None:
    run = str(tmp_path / "run" / "best.safetensors")
    both = str(tmp_path / "both" / "motion" / "best.safetensors")
    for url in (run, both):
        save_checkpoint(url, network.state_dict(), network.config, "motion")
    assert find_checkpoint(str(tmp_path / "run"), "motion") == run
    assert find_checkpoint(str(tmp_path / "run"), "animator") is None
    assert find_checkpoint(str(tmp_path / "both"), "motion") == both
    assert find_checkpoint(str(tmp_path / "both"), "animator") is None
    assert find_checkpoint(run, "motion") == run
    for missing in ("nothing", "nothing.safetensors", "nothing.pt"):
        with pytest.raises(UsageError, match="no checkpoint at .*expected a .safetensors file"):
            find_checkpoint(str(tmp_path / missing), "motion")


def test_digest_follows_the_weights_and_not_their_place(network: MotionNetwork, tmp_path: Path) -> None:
    one, other = str(tmp_path / "one" / "best.safetensors"), str(tmp_path / "two" / "best.safetensors")
    save_checkpoint(one, network.state_dict(), network.config, "motion")
    write_bytes(other, read_bytes(one))
    before = weights_digest(str(tmp_path / "one"))
    assert before == weights_digest(str(tmp_path / "two"))
    save_checkpoint(other, network.state_dict(), network.config, "motion", {"step": 1})
    assert before != weights_digest(str(tmp_path / "two"))


def test_failed_write_leaves_the_old_file(network: MotionNetwork, tmp_path: Path) -> None:
    url = str(tmp_path / "best.safetensors")
    save_checkpoint(url, network.state_dict(), network.config, "motion", {"step": 1})
    with pytest.raises(TypeError):
        save_checkpoint(url, network.state_dict(), network.config, "motion", {"step": object()})
    assert load_checkpoint(url).metadata == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]
    assert exists(url)
