"""What `stillstream models` does with a registry: add, judge and promote, roll back, list.

Every decision, a refusal too, is written into the registry's history with its reasons.
"""

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

from flows.jobs import Outcome
from storage.digest import digest_json
from storage.errors import UsageError
from storage.model_registry import Event, EventKind, ModelRegistry, Version, pin_weights
from storage.objects import digest_object, exists, join_url, read_bytes
from storage.progress import OnProgress, Progress

if TYPE_CHECKING:
    from flows.settings import Settings
    from models.evaluate import EvaluationConfig
    from models.evaluation import ClipFigures
    from models.promotion import Verdict

__all__ = ["add_model", "list_models", "promote_model", "roll_back_model"]

EVALUATION_FILE = "evaluation.json"


def add_model(registry_url: str, checkpoint: str | None) -> Outcome:
    """Register a checkpoint as a candidate; founds the registry where there is none yet (None: only that)."""
    from models.candidate import add_candidate, open_registry

    registry = open_registry(registry_url)
    if checkpoint is None:
        version = registry.version(str(registry.current()))
    else:
        version = add_candidate(registry, str(pin_weights(checkpoint).checkpoint))
    state = registry.states()[version.name]
    return Outcome(
        title="Model",
        rows={**_version_rows(version), "state": state},
        summary={"registry": registry_url, "version": version.name, "state": state, **_plain(version)},
    )


def list_models(registry_url: str) -> Outcome:
    """Every version with its state, and every decision."""
    registry = ModelRegistry(registry_url)
    registry.require()
    history, versions, states = list(registry.history()), registry.versions(), registry.states()
    last = {event.version: event for event in history}
    return Outcome(
        title="Models",
        rows={
            version.name: f"{states[version.name]}, {_told(version, last.get(version.name))}"
            for version in versions
        },
        summary={
            "registry": registry_url,
            "current": registry.current(),
            "versions": [{**_plain(version), "state": states[version.name]} for version in versions],
            "history": [{**dataclasses.asdict(event), "at": event.at.isoformat()} for event in history],
        },
    )


def promote_model(
    registry_url: str,
    name: str,
    settings: "Settings",
    *,
    data: str | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Judge a version against the current one on `data` and promote it if the gate lets it through.

    `force` promotes it without a look. Raises UsageError for a version that is not there, or when there is
    nothing to judge on.
    """
    registry = ModelRegistry(registry_url)
    registry.require()
    version, current = registry.version(name), registry.current()
    if version.name == current:
        return _decision(registry, version, "already current", "nothing to do")
    if force or current is None:
        why = "promoted by hand, without a look at its figures"
        registry.record(EventKind.PROMOTED, version.name, why=why)
        return _decision(registry, version, EventKind.PROMOTED, why)
    verdict = _judge(registry, version, registry.version(current), data, (settings, on_progress))
    kind = EventKind.PROMOTED if verdict.promoted else EventKind.REFUSED
    details = {"against": current, **verdict.as_json()}
    if not _is_known(registry, kind, version.name, details):
        registry.record(kind, version.name, why=verdict.why, details=details)
    return _decision(registry, version, kind, verdict.why, verdict)


def roll_back_model(registry_url: str, name: str | None = None, *, why: str = "") -> Outcome:
    """Make the version that was current before current again, or the one of this name.

    Raises UsageError when there was none before, or it never was current.
    """
    registry = ModelRegistry(registry_url)
    registry.require()
    target = registry.before_current() if name is None else registry.version(name).name
    if target is None:
        raise UsageError(f"{registry_url} has had one current version only; there is nothing to return to")
    if target == registry.current():
        return _decision(registry, registry.version(target), "already current", "nothing to do")
    if registry.decided().get(target) in (None, EventKind.REFUSED):
        raise UsageError(f"version {target} never was current; use `stillstream models promote {target}`")
    why = why or "rolled back by hand"
    registry.record(EventKind.ROLLED_BACK, target, why=why)
    return _decision(registry, registry.version(target), EventKind.ROLLED_BACK, why)


def _judge(
    registry: ModelRegistry,
    version: Version,
    current: Version,
    data: str | None,
    how: tuple["Settings", OnProgress | None],
) -> "Verdict":
    from models.dataset import read_index, split_urls
    from models.promotion import judge, too_few

    settings, on_progress = how
    gate = settings.promotion
    data = data or gate.data
    if not data:
        raise UsageError("what shall it be judged on? name a dataset by --data, or data in [promotion]")
    index = read_index(split_urls(data))
    index = index.with_split(gate.split) if gate.split else index
    if refused := too_few(len(set(index.source_N.tolist())), gate):
        return refused
    # Loops are the slow part and say nothing that a figure of the gate needs; one shows what is to come.
    config = dataclasses.replace(
        settings.evaluate,
        split=gate.split,
        limit=gate.limit,
        loops=1,
        deep=_digest(version, "animator") != _digest(current, "animator"),
    )
    found = [
        _evaluated(registry, each, data, config, _named(label, on_progress))
        for label, each in (("candidate", version), ("current", current))
    ]
    return judge(found[0], found[1], gate)


def _evaluated(
    registry: ModelRegistry,
    version: Version,
    data: str,
    config: "EvaluationConfig",
    on_progress: OnProgress | None,
) -> "list[ClipFigures]":
    """The clips' figures for a version; what is in the registry for the same clips is not measured again."""
    from flows.evaluation_page import publish_evaluation
    from models.dataset import split_urls
    from models.evaluate import evaluate
    from models.lineage import code_version, describe_dataset

    name = digest_json(
        {
            "data": [describe_dataset(url)["digest"] for url in split_urls(data)],
            "config": config,
            "groups": digest_object(config.groups) if config.groups else None,
            "code": code_version()["models_digest"],
        }
    )[:12]
    place = join_url(registry.version_url(version.name), "evaluations", name)
    if not exists(join_url(place, EVALUATION_FILE)):
        evaluation = evaluate(data, registry.version_url(version.name), config, on_progress=on_progress)
        publish_evaluation(evaluation, place)
    return _clips(json.loads(read_bytes(join_url(place, EVALUATION_FILE))))


def _clips(evaluation: dict[str, Any]) -> "list[ClipFigures]":
    """Every clip's figures from evaluation.json, where no number is null."""
    from models.evaluation import ClipFigures

    return [ClipFigures(**{**clip, "rows": _numbers(clip["rows"])}) for clip in evaluation["clips"]]


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _numbers(each) for name, each in value.items()}
    return math.nan if value is None else value


def _is_known(registry: ModelRegistry, kind: EventKind, name: str, details: dict[str, Any]) -> bool:
    """Whether the same was decided about a version the last time, on the same figures."""
    last = [event for event in registry.history() if event.version == name][-1:]
    return kind == EventKind.REFUSED and bool(last) and last[0].kind == kind and last[0].details == details


def _decision(
    registry: ModelRegistry, version: Version, decision: str, why: str, verdict: "Verdict | None" = None
) -> Outcome:
    figures = {} if verdict is None else {name: str(each) for name, each in verdict.figures.items()}
    current = registry.current()
    return Outcome(
        title="Models",
        rows={"version": version.name, "decision": str(decision), "why": why, **figures, "current": current},
        summary={
            "registry": registry.url,
            "version": version.name,
            "decision": str(decision),
            "why": why,
            "current": current,
            "verdict": None if verdict is None else verdict.as_json(),
        },
    )


def _version_rows(version: Version) -> dict[str, object]:
    weights = {kind: f"{each['sha256'][:12]} ({each['from']})" for kind, each in version.weights.items()}
    return {"version": version.name, "added": version.added_at, **weights}


def _plain(version: Version) -> dict[str, Any]:
    return dataclasses.asdict(version)


def _told(version: Version, last: Event | None) -> str:
    said = f"added {version.added_at[:10]} from {version.lineage.get('checkpoint', 'unknown')}"
    return said if last is None else f"{said}; {last.why}"


def _digest(version: Version, kind: str) -> str | None:
    weights = version.weights.get(kind)
    return None if weights is None else str(weights["sha256"])


def _named(label: str, on_progress: OnProgress | None) -> OnProgress | None:
    if on_progress is None:
        return None
    return lambda progress: on_progress(Progress(stage=label, done=progress.done, total=progress.total))
