"""Settings of an animation: what is refused, and what counts as the same."""

import pytest

from pipelines.animation_config import AnimationConfig
from storage.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"format": ("mov",)}, "format must be one of mp4"),
        ({"format": ("mp4", "mp4")}, "each format once"),
        ({"seconds": 0.01}, "seconds must be 0.1 to 120"),
        ({"fps": 60, "format": ("gif",)}, "slow a GIF"),
        ({"fps": float("nan")}, "fps must be 1 to 120"),
        ({"renderer": "neural"}, "renderer must be one of auto, deep, splat, got 'neural'"),
        ({"seconds": 120, "fps": 120}, "2 to 3600 frames"),
        ({"quality": 101}, "quality must be 1 to 100"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        AnimationConfig(**settings)  # type: ignore[arg-type]


def test_settings_that_mean_the_same_have_the_same_digest() -> None:
    assert AnimationConfig(seconds=2).digest() == AnimationConfig(seconds=2.0, format=("gif",)).digest()
    assert AnimationConfig(seconds=2).digest() != AnimationConfig(seconds=2, speed=1.1).digest()
