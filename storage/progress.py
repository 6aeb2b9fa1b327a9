"""What a running job tells whoever watches it: one small record per change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["OnProgress", "Progress"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far one stage is: `done` of `total` items (None: not known yet), counts by status or reason."""

    stage: str
    done: int
    total: int | None = None
    counts: dict[str, int] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]
