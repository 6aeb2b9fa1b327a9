"""The dataset report: report/index.html of a dataset, from its manifest and a few of its samples.

It says how many items came how far and why the others did not, shows a wall of clips beside their motion in
colour, and how speeds, directions, licences and sources are spread. One self-contained file.
"""

import datetime
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from flows.charts import Bar, bars, histogram, rose
from flows.page import picture_uri, render_page
from flows.report_wall import choose_clips, draw_clips
from models.colour_wheel import colour_wheel
from storage.dataset_format import DatasetInfo, manifest_url, read_dataset_json
from storage.manifest import read_rows
from storage.objects import join_url, write_bytes
from storage.reasons import Status

__all__ = ["DatasetStatistics", "gather_statistics", "publish_report"]

REPORT = ("report", "index.html")
# The way of a clip: the stage in a manifest row is the one at which it ended.
STAGES = {
    "crawl": "Taken from the web",
    "read": "Readable video",
    "screen": "Steady, lit and moving at a first look",
    "stabilise": "Still camera",
    "motion": "Motion agrees forward and backward",
    "encode": "Measured",
    "select": "Kept: fluid enough to learn from",
}
LISTED_SOURCES = 40
COLUMNS = (
    "key source status reason stage category licence title split shard mean_speed direction moving_share "
    "coherence seconds_spent"
).split()


@dataclass(kw_only=True, slots=True)
class DatasetStatistics:
    """What the report counts; filled row by row, so that a manifest is never held whole."""

    statuses: Counter[str] = field(default_factory=Counter)
    ended: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    speeds: list[float] = field(default_factory=list)
    directions: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one manifest row."""
        status, reason = row["status"], row["reason"] or ""
        self.statuses[status] += 1
        self.seconds += row["seconds_spent"] or 0.0
        source = self.sources.setdefault(row["source"], Counter())
        source[status] += 1
        if status != Status.OK:
            self.reasons[(status, reason)] += 1
            self.ended.setdefault(row["stage"] or "read", Counter())[reason] += 1
            return
        self.categories[row["category"] or "not said"] += 1
        self.licences[row["licence"] or "not said"] += 1
        self.splits[row["split"] or "none"] += 1
        # Speeds are kept in diagonals per second, so that videos of any size and rate compare.
        for values, name, scale in ((self.speeds, "mean_speed", 100.0), (self.directions, "direction", 1.0)):
            value = row[name]
            if value is not None and math.isfinite(value):
                values.append(scale * value)

    @property
    def attempted(self) -> int:
        """All rows."""
        return self.statuses.total()

    def funnel(self) -> list[dict[str, Any]]:
        """Stage by stage: how many were still in after it, and the reasons of those it lost."""
        left = self.attempted
        steps: list[dict[str, Any]] = [{"label": "Attempted", "left": left, "lost": []}]
        unknown = [name for name in self.ended if name not in STAGES]
        for name, label in [*STAGES.items(), *((name, name) for name in unknown)]:
            lost = self.ended.get(name, Counter())
            if name == "crawl" and not lost:
                continue
            left -= lost.total()
            steps.append({"label": label, "left": left, "lost": lost.most_common()})
        assert left == self.statuses[Status.OK], (left, self.statuses)
        return steps


def publish_report(dataset_url: str, *, clips: int = 48) -> str:
    """Write report/index.html into a dataset; returns its URL. Raises FormatError for what is no dataset."""
    info = read_dataset_json(dataset_url)
    manifest = manifest_url(dataset_url)
    statistics = gather_statistics(read_rows(manifest, columns=COLUMNS))
    chosen = choose_clips(read_rows(manifest, columns=COLUMNS), limit=clips)
    wall = list(draw_clips(dataset_url, chosen))
    page = render_page(
        "report",
        title=_title(dataset_url),
        data={"clips": wall},
        values={
            "statistics": statistics,
            "figures": _figures(statistics, info),
            "funnel": statistics.funnel(),
            "reasons": _reason_bars(statistics),
            "tables": _tables(statistics),
            "sources": _sources(statistics),
            "source_count": len(statistics.sources),
            "speeds": histogram(statistics.speeds, unit="%/s"),
            "directions": rose(statistics.directions),
            "wheel": picture_uri(colour_wheel(168)),
            "clip_count": len(wall),
            "facts": _facts(dataset_url, info),
            "version": version("stillstream"),
            "made_on": datetime.datetime.now(datetime.UTC).date().isoformat(),
        },
    )
    page_url = join_url(dataset_url, *REPORT)
    write_bytes(page_url, page)
    return page_url


def gather_statistics(rows: Iterable[Mapping[str, Any]]) -> DatasetStatistics:
    """Count manifest rows."""
    statistics = DatasetStatistics()
    for row in rows:
        statistics.add(row)
    return statistics


def _title(dataset_url: str) -> str:
    return f"Dataset “{dataset_url.rstrip('/').rpartition('/')[2] or dataset_url}”"


def _figures(statistics: DatasetStatistics, info: DatasetInfo) -> list[tuple[str, str]]:
    size = sum(shard.bytes for shard in info.shards) / 1e6
    contributing = sum(bool(counts[Status.OK]) for counts in statistics.sources.values())
    return [
        (f"{statistics.statuses[Status.OK]:,}", "clips kept"),
        (f"{statistics.attempted:,}", "clips tried"),
        (f"{statistics.statuses[Status.REJECTED]:,}", "rejected"),
        (f"{statistics.statuses[Status.FAILED]:,}", "failed"),
        (f"{contributing:,} of {len(statistics.sources):,}", "sources contribute"),
        (f"{size:,.1f} MB", f"in {len(info.shards):,} shard{'' if len(info.shards) == 1 else 's'}"),
    ]


def _reason_bars(statistics: DatasetStatistics) -> list[Bar]:
    return bars(
        [
            (f"{status}: {_words(reason)}", count)
            for (status, reason), count in statistics.reasons.most_common()
        ]
    )


def _tables(statistics: DatasetStatistics) -> list[tuple[str, list[Bar]]]:
    counted = [
        ("Categories", statistics.categories),
        ("Licences", statistics.licences),
        ("Splits", statistics.splits),
    ]
    return [
        (name, bars([(_words(key), count) for key, count in counter.most_common(12)]))
        for name, counter in counted
    ]


def _sources(statistics: DatasetStatistics) -> list[dict[str, Any]]:
    """The sources that gave most, with what became of their clips."""
    kept = max(statistics.statuses[Status.OK], 1)
    ranked = sorted(statistics.sources.items(), key=lambda entry: (-entry[1][Status.OK], entry[0]))
    return [
        {
            "name": source.rpartition("/")[2] or source,
            "url": source,
            "ok": counts[Status.OK],
            "rejected": counts[Status.REJECTED],
            "failed": counts[Status.FAILED],
            "share": f"{100 * counts[Status.OK] / kept:.1f} %",
        }
        for source, counts in ranked[:LISTED_SOURCES]
    ]


def _facts(dataset_url: str, info: DatasetInfo) -> list[tuple[str, str]]:
    return [
        ("Dataset", dataset_url),
        ("Format version", str(info.format_version)),
        ("Configuration", info.config_digest[:16]),
        ("Version before this one", info.parent[:16] if info.parent else "none"),
    ]


def _words(code: str) -> str:
    return code.replace("_", " ")
