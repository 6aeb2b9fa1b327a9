"""Which hints a photo gets: those given for the whole run, or those in a file beside it."""

import dataclasses
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.hints import Hints, parse_hints
from pipelines.animation_config import AnimationConfig
from storage.errors import ItemError, UsageError
from storage.objects import read_bytes
from storage.photo import decode_photo

__all__ = ["hints_for", "load_run_hints"]


def load_run_hints(config: AnimationConfig) -> Hints | None:
    """The hints given for every photo of a run. Raises UsageError when a file is wrong or missing."""
    try:
        return _run_hints(config.hints, config.mask, config.freeze)
    except ItemError as exc:
        raise UsageError(str(exc)) from exc


@lru_cache(maxsize=1)
def _run_hints(hints_url: str | None, mask_url: str | None, freeze_url: str | None) -> Hints | None:
    if not (hints_url or mask_url or freeze_url):
        return None
    hints = parse_hints(read_bytes(hints_url)) if hints_url else Hints()
    return dataclasses.replace(
        hints,
        moving_mask_HW=_read_mask(mask_url) if mask_url else None,
        frozen_mask_HW=_read_mask(freeze_url) if freeze_url else None,
    )


def _read_mask(url: str) -> NDArray[np.uint8]:
    # What is transparent in a mask was not painted.
    picture = decode_photo(read_bytes(url), background="black").image_HW3
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)


def hints_for(config: AnimationConfig, beside: bytes | None) -> Hints | None:
    """A photo's own hints file replaces that of the run; masks of the run stay."""
    common = _run_hints(config.hints, config.mask, config.freeze)
    if beside is None:
        return common
    own = parse_hints(beside)
    if common is None:
        return own
    masks: dict[str, Any] = {
        "moving_mask_HW": common.moving_mask_HW,
        "frozen_mask_HW": common.frozen_mask_HW,
    }
    return dataclasses.replace(own, **masks)
