import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.softmax_splatting import (
    SAFE_RANGE,
    softmax_splat,
    splat_numpy,
    splat_sums_numpy,
    symmetric_splat,
    symmetric_splat_numpy,
)
from storage.errors import UsageError


def case(seed: int, channels: int = 3, size=(11, 13), reach: float = 4.0, spread: float = 3.0):
    rng = np.random.default_rng(seed)
    features = rng.random((*size, channels), np.float32)
    displacement = ((rng.random((2, *size), np.float32) * 2 - 1) * reach).astype(np.float32)
    importance = (rng.standard_normal(size) * spread).astype(np.float32)
    return features, displacement, importance


def as_torch(features, displacement, importance):
    return (
        torch.from_numpy(features).permute(2, 0, 1)[None],
        torch.from_numpy(displacement)[None],
        torch.from_numpy(importance)[None, None],
    )


def reference(features, displacement, importance):
    """The formula, one source and one corner after the other, in double precision."""
    height, width, channels = features.shape
    logs: dict[tuple[int, int], list[tuple[float, float, np.ndarray]]] = {}
    for y in range(height):
        for x in range(width):
            px, py = np.float32(x) + displacement[0, y, x], np.float32(y) + displacement[1, y, x]
            for v in (int(np.floor(py)), int(np.floor(py)) + 1):
                for u in (int(np.floor(px)), int(np.floor(px)) + 1):
                    share = (1 - abs(float(px) - u)) * (1 - abs(float(py) - v))
                    if share > 0 and 0 <= u < width and 0 <= v < height:
                        logs.setdefault((v, u), []).append((share, float(importance[y, x]), features[y, x]))
    out = np.zeros((height, width, channels))
    for place, landed in logs.items():
        top = max(z for _, z, _ in landed)
        weights = np.array([share * np.exp(z - top) for share, z, _ in landed])
        out[place] = (weights[:, None] * np.array([colour for *_, colour in landed])).sum(0) / weights.sum()
    return out


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 3.0, 100.0])
def test_the_formula(channels, spread):
    inputs = case(1, channels=channels, spread=spread)
    np.testing.assert_allclose(splat_numpy(*inputs).features, reference(*inputs), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 3, 4]),
    st.sampled_from([0.0, 0.3, 3.0, 30.0]),
    st.sampled_from([0.0, 1.0, 10.0, 200.0]),
)
def test_the_compiled_and_the_differentiable_path_agree(seed, channels, reach, spread):
    inputs = case(seed, channels=channels, reach=reach, spread=spread)
    average, weights = softmax_splat(*as_torch(*inputs))
    splat = splat_numpy(*inputs)
    np.testing.assert_allclose(splat.features, average[0].permute(1, 2, 0).numpy(), atol=1e-4)
    if spread == 0:
        # Relative to the largest Z there, which both paths agree on when there is only one.
        np.testing.assert_allclose(splat.weights_HW, weights[0, 0].numpy(), atol=1e-4)


def test_zero_displacement_is_identity():
    features, displacement, importance = case(2)
    splat = splat_numpy(features, 0 * displacement, importance)
    np.testing.assert_allclose(splat.features, features, atol=1e-6)
    average, _ = softmax_splat(*as_torch(features, 0 * displacement, importance))
    np.testing.assert_allclose(average[0].permute(1, 2, 0).numpy(), features, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 2.9))
def test_mass_is_conserved_while_nothing_leaves(seed, reach):
    features, displacement, _ = case(seed, size=(12, 12))
    displacement *= np.float32(reach / 4)
    inside = np.zeros((18, 18, 3), np.float32)
    field = np.zeros((2, 18, 18), np.float32)
    inside[3:15, 3:15], field[:, 3:15, 3:15] = features, displacement
    sums, weights = splat_sums_numpy([(inside, field, None, 0.0)])
    assert weights.sum() == pytest.approx(18 * 18, rel=1e-5)
    np.testing.assert_allclose(sums.sum((0, 1)), inside.sum((0, 1)), rtol=1e-4)


def test_the_more_important_source_wins_where_two_meet():
    features = np.array([[[0.0], [1.0], [0.0]]], np.float32)
    displacement = np.zeros((2, 1, 3), np.float32)
    displacement[0, 0, 0] = 1.0
    equal = splat_numpy(features, displacement, np.zeros((1, 3), np.float32)).features[0, 1, 0]
    wins = splat_numpy(features, displacement, np.array([[8.0, 0.0, 0.0]], np.float32)).features[0, 1, 0]
    assert equal == pytest.approx(0.5)
    assert wins == pytest.approx(1 / (1 + np.exp(8)), abs=1e-6)


@pytest.mark.parametrize("channels", [3, 4])
def test_no_destination_underflows_beside_a_very_important_one(channels):
    features, displacement, _ = case(3, channels=channels)
    importance = np.zeros(features.shape[:2], np.float32)
    importance[0, 0] = 10 * SAFE_RANGE
    splat = splat_numpy(features, 0 * displacement, importance)
    np.testing.assert_allclose(splat.features, features, atol=1e-6)
    average, _ = softmax_splat(*as_torch(features, 0 * displacement, importance))
    np.testing.assert_allclose(average[0].permute(1, 2, 0).numpy(), features, atol=1e-6)


def test_sources_that_leave_or_are_not_numbers_are_dropped():
    features, displacement, importance = case(4)
    displacement[0] = 1e9
    displacement[1, 0] = np.nan
    splat = splat_numpy(features, displacement, importance)
    assert not splat.features.any() and not splat.weights_HW.any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_symmetric_splatting_agrees_too(seed, alpha):
    features, forward, importance = case(seed, channels=3)
    backward = case(seed + 1)[1]
    compiled = symmetric_splat_numpy(features, forward, backward, importance, alpha).features
    picture, ahead, z = as_torch(features, forward, importance)
    behind = torch.from_numpy(backward)[None]
    average, _ = symmetric_splat((picture, picture), (ahead, behind), (z, z), torch.tensor([alpha]))
    np.testing.assert_allclose(compiled, average[0].permute(1, 2, 0).numpy(), atol=1e-4)


@pytest.mark.parametrize(("alpha", "way"), [(0.0, 0), (1.0, 1)])
def test_at_its_ends_symmetric_splatting_knows_one_way_only(alpha, way):
    features, forward, importance = case(5)
    backward = case(6)[1]
    both = symmetric_splat_numpy(features, forward, backward, importance, alpha).features
    one = splat_numpy(features, (forward, backward)[way], importance).features
    np.testing.assert_allclose(both, one, atol=1e-6)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    features = torch.rand(1, 2, 5, 5, requires_grad=True)
    # Away from whole pixels, where the bilinear weight has a corner.
    displacement = (torch.randint(-1, 2, (1, 2, 5, 5)) + 0.2 + 0.6 * torch.rand(1, 2, 5, 5)).requires_grad_()
    importance = torch.rand(1, 1, 5, 5, requires_grad=True)
    target = torch.rand(1, 2, 5, 5)

    def loss() -> torch.Tensor:
        average, weights = softmax_splat(features, displacement, importance)
        return ((average - target) * (weights > 0)).square().sum()

    loss().backward()
    for tensor in (features, displacement, importance):
        assert tensor.grad is not None
        index = tuple(int(i) for i in torch.unravel_index(tensor.grad.abs().argmax(), tensor.shape))
        with torch.no_grad():
            step, kept = 1e-2, tensor[index].clone()
            tensor[index] = kept + step
            above = loss()
            tensor[index] = kept - step
            below = loss()
            tensor[index] = kept
        assert float(tensor.grad[index]) == pytest.approx(float((above - below) / (2 * step)), rel=0.05)


def test_half_precision_features_are_summed_in_single_precision():
    features = torch.ones(1, 1, 1, 600)
    displacement = -torch.arange(600.0).view(1, 1, 1, 600).repeat(1, 2, 1, 1)
    displacement[:, 1] = 0
    average, weights = softmax_splat(features.bfloat16(), displacement)
    assert average.dtype == torch.bfloat16 and weights.dtype == torch.float32
    # Adding ones in bfloat16 stops at 256.
    assert float(weights[0, 0, 0, 0]) == 600.0


@pytest.mark.parametrize(
    ("features", "displacement", "importance"),
    [
        (np.zeros((4, 4), np.float32), np.zeros((2, 4, 4), np.float32), None),
        (np.zeros((4, 4, 3), np.float32), np.zeros((2, 4, 5), np.float32), None),
        (np.zeros((4, 4, 3), np.float32), np.zeros((2, 4, 4), np.float32), np.zeros((5, 4), np.float32)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(features, displacement, importance):
    with pytest.raises(UsageError, match="must be"):
        splat_numpy(features, displacement, importance)


def test_alpha_outside_its_range_is_refused():
    features, displacement, importance = case(7)
    with pytest.raises(UsageError, match="alpha"):
        symmetric_splat_numpy(features, displacement, displacement, importance, 1.5)


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_number_of_threads_changes_no_bit(threads: int) -> None:
    rng = np.random.default_rng(threads)
    colours = rng.random((700, 40, 3), np.float32)
    displacement = rng.normal(0, 40, (2, 700, 40)).astype(np.float32)
    displacement[:, 3] = np.nan
    displacement[1, 500] = -1e30
    importance = rng.normal(0, 2, (700, 40)).astype(np.float32)
    alone = splat_numpy(colours, displacement, importance, threads=1)
    shared = splat_numpy(colours, displacement, importance, threads=threads)
    assert np.array_equal(alone.features, shared.features)
    assert np.array_equal(alone.weights_HW, shared.weights_HW) and alone.weights_HW.max() > 0
