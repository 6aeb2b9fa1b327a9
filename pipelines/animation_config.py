"""What a person chooses about animating photos, and which of it belongs to the identity of a result."""

import dataclasses
import math
from dataclasses import dataclass

from storage.digest import digest_json
from storage.errors import UsageError
from storage.loops import FORMATS, LoopOptions, usable_formats
from storage.objects import digest_object
from storage.photo import MAX_PIXELS

__all__ = ["RENDERERS", "AnimationConfig"]

RENDERERS = ("auto", "deep", "splat")
MAX_FRAMES = 3600
# What decides which files are written, where and by whom, but not what is in them.
BESIDE_THE_PICTURE = (
    "checkpoint",
    "format",
    "save_motion",
    "overwrite",
    "keep_older",
    "hints",
    "mask",
    "freeze",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimationConfig:
    """How photos become loops.

    checkpoint: weights, or a model registry (None: the package's weights); format: one or several of
    mp4, webm, hevc, av1, gif, webp, avif, apng, png; seconds: length of the loop; fps: its frames per second;
    speed: factor on the motion; strength: how readily things move, 1 as the network sees it; renderer: auto,
    deep or splat; max_side: longest side of the output, 0 keeps the photo's; save_motion: also write the
    motion field; repeat: periods baked into a video; quality: of the encoding, 1…100; lossless: for WebP;
    keep_metadata: keep EXIF and place; overwrite: render again what is done; keep_older: leave loops alone
    that were made by other weights; hints: URL of arrows and areas (JSON) for every photo; mask: URL of a
    picture in which white moves; freeze: URL of a picture in which white stays still; max_pixels: refuse
    larger photos.
    """

    checkpoint: str | None = None
    format: tuple[str, ...] = ("mp4",)
    seconds: float = 2.0
    fps: float = 30.0
    speed: float = 1.0
    strength: float = 1.0
    renderer: str = "auto"
    max_side: int = 0
    save_motion: bool = False
    repeat: int = 1
    quality: int = 90
    lossless: bool = False
    keep_metadata: bool = False
    overwrite: bool = False
    keep_older: bool = False
    hints: str | None = None
    mask: str | None = None
    freeze: str | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if isinstance(self.format, str):
            object.__setattr__(self, "format", tuple(self.format.split(",")))
        for name in ("seconds", "fps", "speed", "strength"):
            # 2 and 2.0 must not differ in the digest.
            object.__setattr__(self, name, float(getattr(self, name)))
        self._check_formats()
        _check_range("fps", self.fps, 1, 120)
        _check_range("seconds", self.seconds, 0.1, 120)
        _check_range("speed", self.speed, 0.05, 10)
        _check_range("strength", self.strength, 0.1, 3)
        _check_range("max_side", self.max_side, 0, 65_535)
        _check_range("repeat", self.repeat, 1, 1000)
        _check_range("max_pixels", self.max_pixels, 1, 1_000_000_000)
        if self.renderer not in RENDERERS:
            raise UsageError(f"renderer must be one of {', '.join(RENDERERS)}, got {self.renderer!r}")
        if not 2 <= self.frames <= MAX_FRAMES:
            raise UsageError(
                f"seconds × fps must give 2 to {MAX_FRAMES} frames, got {self.seconds:g} × {self.fps:g}; "
                "bake several periods into a video by repeat"
            )
        if "gif" in self.format and self.fps > 50:
            raise UsageError(f"players slow a GIF of more than 50 frames per second down, got {self.fps:g}")
        LoopOptions(quality=self.quality)

    def _check_formats(self) -> None:
        if not self.format or len(set(self.format)) != len(self.format):
            raise UsageError(f"format must name each format once, got {','.join(self.format) or 'none'}")
        for name in self.format:
            if name not in FORMATS:
                raise UsageError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
            if name not in usable_formats():
                raise UsageError(
                    f"this machine has no encoder for {name}; there are {', '.join(usable_formats())}"
                )

    @property
    def frames(self) -> int:
        """Frames of one period."""
        return max(1, round(self.seconds * self.fps))

    def digest(self) -> str:
        """Digest of everything that decides what a result looks like, the content of hint files included."""
        seen = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in BESIDE_THE_PICTURE
        }
        files = {
            name: digest_object(url) for name in ("hints", "mask", "freeze") if (url := getattr(self, name))
        }
        return digest_json({"settings": seen, "files": files})

    def public(self) -> dict[str, object]:
        """The settings as a sidecar shows them: without URLs, which may hold secrets or private paths."""
        hidden = ("checkpoint", "hints", "mask", "freeze", "overwrite", "keep_older")
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in hidden
        }


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{name} must be {low:g} to {high:g}, got {value:g}")
