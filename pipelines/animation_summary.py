"""What became of the photos of one run, added up."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipelines.animation_ledger import LEDGER_NAME, ledger_parts, read_ledger
from pipelines.animation_plan import Plan
from storage.objects import join_url, read_bytes
from storage.reasons import Status

__all__ = ["AnimationSummary", "Tally", "summarise"]

LISTED_FAILURES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimationSummary:
    """What became of the listed photos.

    counts: attempted, ok, rejected, failed; skipped: how many of them were done before; reasons: of those not
    ok; seconds and photos_per_hour: of this run's own work; stage_seconds: summed over workers; counters:
    those of its Beam job;
    failed_items: photo, reason, message of the first thousand; stopped: asked to end before all was done.
    """

    counts: dict[str, int]
    skipped: int
    reasons: dict[str, int]
    seconds: float
    photos_per_hour: float
    stage_seconds: dict[str, float]
    stage_shares: dict[str, float]
    counters: dict[str, int]
    failed_items: list[dict[str, str]]
    stopped: bool
    out: str
    ledger_url: str


@dataclass(kw_only=True, slots=True)
class Tally:
    """This run's rows, added up."""

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    stage_seconds: Counter[str] = field(default_factory=Counter)
    failed: list[dict[str, str]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)

    def read(self, out: str) -> None:
        """Add up the rows of this run, which are those not merged into the ledger yet."""
        for url in ledger_parts(out):
            for line in read_bytes(url).splitlines():
                row = json.loads(line)
                if "status" in row:
                    self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """Count one row."""
        self.statuses[row["status"]] += 1
        if row.get("reason"):
            self.reasons[row["reason"]] += 1
        for stage, seconds in (row.get("stage_seconds") or {}).items():
            self.stage_seconds[stage] += seconds
        if row["status"] == Status.FAILED and len(self.failed) < LISTED_FAILURES:
            self.failed.append({name: row.get(name) or "" for name in ("photo", "reason", "message")})


def summarise(plan: Plan, tally: Tally, out: str, seconds: float, *, stopped: bool) -> AnimationSummary:
    """Add what was done before to what this run did in `seconds`."""
    counts = {status.value: tally.statuses[status] + plan.carried[status] for status in Status}
    done = tally.statuses.total()
    spent = sum(tally.stage_seconds.values())
    failed = tally.failed + _carried_failures(plan, out)
    return AnimationSummary(
        counts={"attempted": sum(counts.values()), **counts},
        skipped=plan.carried.total(),
        reasons=dict((tally.reasons + plan.carried_reasons).most_common()),
        seconds=round(seconds, 3),
        photos_per_hour=round(done / seconds * 3600, 1) if done else 0.0,
        stage_seconds={stage: round(value, 3) for stage, value in tally.stage_seconds.most_common()},
        stage_shares={stage: round(value / spent, 4) for stage, value in tally.stage_seconds.most_common()},
        counters=tally.counters,
        failed_items=sorted(failed[:LISTED_FAILURES], key=lambda item: item["photo"]),
        stopped=stopped,
        out=out,
        ledger_url=join_url(out, LEDGER_NAME),
    )


def _carried_failures(plan: Plan, out: str) -> list[dict[str, str]]:
    """Photos that had failed before and have not changed since, with what was said then."""
    wanted = {row["photo"] for row in plan.carried_failures}
    if not wanted:
        return []
    return [
        {name: row[name] or "" for name in ("photo", "reason", "message")}
        for row in read_ledger(out)
        if row["photo"] in wanted
    ]
