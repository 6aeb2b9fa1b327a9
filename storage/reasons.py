"""The closed lists a manifest or ledger row may use: its status, and why it is not ok.

Nothing else is imported here, so every floor can name a reason without paying for anything.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason", "Status"]


class Status(StrEnum):
    """What became of one item; ok + rejected + failed = attempted, always."""

    OK = "ok"
    REJECTED = "rejected"
    FAILED = "failed"


class Reason(StrEnum):
    """Why an item is not ok. The order is that of the ways: crawl, clip, motion, photo, failures."""

    # Crawled links that are not taken.
    LICENCE = "licence"
    ROBOTS = "robots"
    PRIVATE_ADDRESS = "private_address"
    WRONG_TYPE = "wrong_type"
    TOO_LARGE = "too_large"
    DUPLICATE = "duplicate"

    # Readable videos that make no clip.
    TOO_SHORT = "too_short"
    TOO_SMALL = "too_small"
    TOO_DARK = "too_dark"
    CUT = "cut"
    FADE = "fade"
    STILL_PICTURE = "still_picture"
    SLIDESHOW = "slideshow"
    LETTERBOX = "letterbox"
    OVERLAY_TEXT = "overlay_text"
    UNSUPPORTED = "unsupported"

    # Clips whose motion is not worth learning.
    NO_MOTION = "no_motion"
    CAMERA_MOTION = "camera_motion"
    INCOHERENT_MOTION = "incoherent_motion"
    NOT_FLUID = "not_fluid"

    # Photos.
    NOTHING_TO_ANIMATE = "nothing_to_animate"

    # Items that failed.
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    NO_VIDEO = "no_video"
    EMPTY = "empty"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    NOT_FOUND = "not_found"
    HTTP_ERROR = "http_error"
    NETWORK = "network"
    STORE_ERROR = "store_error"
    BAD_HINTS = "bad_hints"
    UNSAFE_NAME = "unsafe_name"
    INTERNAL = "internal"  # only for an error of ours that one item brought out, with its text in `message`
