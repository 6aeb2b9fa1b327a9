"""The deployments: every flow under its name, with its schedule, its places and its limit.

One definition serves both ways to run them: `stillstream flows serve` runs all of them in one process, and
prefect.yaml, written by `stillstream flows yaml`, gives the same ones to a work pool. Flows are named by
module, so they are found wherever the package is installed.
"""

import dataclasses
import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from storage.errors import UsageError

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

    from flows.settings import Settings

__all__ = [
    "DEPLOYMENTS",
    "Deployment",
    "FlowsConfig",
    "deployment_parts",
    "prefect_yaml",
    "served_deployments",
]

TAG = "stillstream"
NIGHTLY = "nightly"


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """A flow that can be run by name.

    `flow`: module and name of the flow function. `places`: its parameters that are filled from a key of
    [nightly], where that is set.
    """

    name: str
    flow: str
    places: Mapping[str, str] = field(default_factory=dict)


DEPLOYMENTS = (
    Deployment(
        name="crawl-videos",
        flow="flows.crawl_videos.crawl_videos_flow",
        places={"sources": "sources", "out": "videos"},
    ),
    Deployment(
        name="build-dataset",
        flow="flows.build_dataset.build_dataset_flow",
        places={"videos": "videos", "out": "dataset"},
    ),
    Deployment(
        name="train-models",
        flow="flows.train_models.train_models_flow",
        places={"data": "dataset", "out": "weights"},
    ),
    Deployment(
        name="evaluate-weights",
        flow="flows.evaluate_weights.evaluate_weights_flow",
        places={"data": "dataset"},
    ),
    Deployment(
        name="promote-model",
        flow="flows.promote_model.promote_model_flow",
        places={"registry": "registry", "data": "dataset"},
    ),
    Deployment(
        name="animate-photos",
        flow="flows.animate_photos.animate_photos_flow",
        places={"photos": "photos", "out": "loops"},
    ),
    Deployment(
        name="publish-gallery",
        flow="flows.publish_gallery.publish_gallery_flow",
        places={"url": "loops"},
    ),
    Deployment(name=NIGHTLY, flow="flows.nightly.nightly_flow"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowsConfig:
    """How the flows run unattended.

    `schedules`: cron expressions by deployment, instead of the default's; one is active when all that its
    flow needs is named. `timezone`: the one they are meant in. `limit`: runs at a time in `flows serve`; of
    one deployment there is never more than one. `metrics_host`: where `flows serve` answers Prometheus.
    `metrics_port`: the port there; 0 answers nowhere. `work_pool`: the pool that prefect.yaml names.
    `secrets`: environment variable → Prefect Secret block that holds its value; a variable that is set wins.
    """

    schedules: Mapping[str, str] = field(default_factory=lambda: {NIGHTLY: "0 3 * * *"})
    timezone: str = "UTC"
    limit: int = 2
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9464
    work_pool: str = "stillstream"
    secrets: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("schedules", self.schedules), ("secrets", self.secrets)):
            if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
                raise UsageError(f"{name} must be a table of texts, got {type(value).__name__}")
        # The environment has neither hyphens nor small letters to tell these names by.
        schedules = {name.replace("_", "-"): cron for name, cron in self.schedules.items()}
        object.__setattr__(self, "schedules", schedules)
        object.__setattr__(self, "secrets", {name.upper(): block for name, block in self.secrets.items()})
        known = [deployment.name for deployment in DEPLOYMENTS]
        if wrong := [name for name in schedules if name not in known]:
            raise UsageError(f"schedules: there is no deployment {wrong[0]!r}; there are {', '.join(known)}")
        if self.limit < 1:
            raise UsageError(f"limit must be at least 1, got {self.limit}")
        if not 0 <= self.metrics_port < 65536:
            raise UsageError(f"metrics_port must be 0 to 65535, got {self.metrics_port}")


def deployment_parts(
    deployment: Deployment, settings: "Settings", config_file: str | None = None
) -> dict[str, Any]:
    """A deployment in plain values: what both ways to run it are made of.

    The runs read `config_file`, when there is one. A schedule is active when all that the flow needs is
    known. Raises UsageError for a schedule or a time zone that is none.
    """
    flow = _load(deployment)
    config = settings.flows
    nightly = dataclasses.asdict(settings.nightly)
    parameters = {name: nightly[key] for name, key in deployment.places.items() if nightly.get(key)}
    if config_file:
        parameters["config"] = os.path.abspath(config_file)
    cron = config.schedules.get(deployment.name, "")
    schedules = []
    if cron:
        _check_schedule(cron, config.timezone)
        active = parameters.keys() >= set(flow.parameters.required) and _has_places(deployment, settings)
        schedules = [{"cron": cron, "timezone": config.timezone, "active": active}]
    return {
        "name": deployment.name,
        "description": str(flow.description).partition("\n")[0],
        "tags": [TAG],
        "entrypoint": deployment.flow,
        "parameters": parameters,
        "schedules": schedules,
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
    }


def served_deployments(settings: "Settings", config_file: str | None = None) -> "list[RunnerDeployment]":
    """All deployments for one process that serves them."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    served = []
    for deployment in DEPLOYMENTS:
        parts = deployment_parts(deployment, settings, config_file)
        schedules = [
            Cron(each["cron"], timezone=each["timezone"], active=each["active"])
            for each in parts["schedules"]
        ]
        made = _load(deployment).to_deployment(
            name=parts["name"],
            description=parts["description"],
            tags=parts["tags"],
            parameters=parts["parameters"],
            schedules=schedules,
            concurrency_limit=ConcurrencyLimitConfig(**parts["concurrency_limit"]),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        served.append(made)
    return served


def prefect_yaml(settings: "Settings", config_file: str | None = None) -> str:
    """The same deployments as a prefect.yaml for `prefect deploy --all`."""
    import yaml  # type: ignore[import-untyped]

    pool = {"name": settings.flows.work_pool}
    parts = [deployment_parts(deployment, settings, config_file) for deployment in DEPLOYMENTS]
    content = {"name": TAG, "pull": [], "deployments": [{**each, "work_pool": dict(pool)} for each in parts]}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
    return f"# Written by `stillstream flows yaml`; do not edit. Deploy by `prefect deploy --all`.\n{text}"


def _load(deployment: Deployment) -> Any:
    module, _, name = deployment.flow.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _has_places(deployment: Deployment, settings: "Settings") -> bool:
    """The nightly flow reads its places from the settings themselves."""
    if deployment.name != NIGHTLY:
        return True
    try:
        settings.nightly.require_places()
    except UsageError:
        return False
    return True


def _check_schedule(cron: str, timezone: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValueError as exc:
        raise UsageError(f"schedules: {cron!r} in {timezone} is no schedule: {exc}") from exc
