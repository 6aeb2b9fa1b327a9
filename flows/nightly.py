"""The nightly flow: new videos → dataset, training when enough is new, the gate, new photos → loops, gallery.

Every stage knows from what lies in its folder what is done already, so a night on which nothing is new does
nothing, and one that was broken off is taken up by the next.
"""

import flows.prefect_environment  # noqa: F401

# isort: split
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect import flow

from flows.animate_photos import animate_photos_flow
from flows.build_dataset import build_dataset_flow
from flows.crawl_videos import crawl_videos_flow
from flows.jobs import Outcome
from flows.metrics import RUN_HOOKS
from flows.model_tasks import add_model_task
from flows.outcomes import final_state, run_name
from flows.promote_model import promote_model_flow
from flows.publish_gallery import publish_gallery_flow
from flows.secrets import run_settings
from flows.settings import load_settings
from flows.train_models import train_models_flow
from storage.dataset_format import DATASET_FILE, read_dataset_json
from storage.errors import UsageError
from storage.model_registry import ModelRegistry
from storage.objects import digest_object, join_url
from storage.web_address import public_url

__all__ = ["NightlyConfig", "new_clips", "nightly_flow", "undecided"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NightlyConfig:
    """Where the nightly flow reads and writes.

    `sources`: what `stillstream crawl` takes; its videos go to `videos` (empty: nothing is crawled).
    `videos`, `photos`: what is new there is taken in. `dataset`, `loops`: folders it writes. `weights`: the
    trainings' folder. `registry`: the model registry, whose current version animates. `new_clips`: train when
    the dataset has so many clips more than the last training had; 0 never trains. `motion_config`: the
    training of the motion network, by name or as a file's URL. `animator_config`: that of the animator; none
    leaves it as it is. `nproc`: processes of a training on this machine. `keep_older`: a promotion leaves the
    loops of older weights as they are, instead of making all again.
    """

    sources: str = ""
    videos: str = ""
    photos: str = ""
    dataset: str = ""
    weights: str = ""
    registry: str = ""
    loops: str = ""
    new_clips: int = 100
    motion_config: str = "default"
    animator_config: str | None = "default"
    nproc: int = 1
    keep_older: bool = True

    def __post_init__(self) -> None:
        if self.new_clips < 0:
            raise UsageError(f"new_clips must be 0 or more, got {self.new_clips}")
        if self.nproc < 1:
            raise UsageError(f"nproc must be at least 1, got {self.nproc}")

    def require_places(self) -> None:
        """Raise UsageError for a place that is not named; they have no default."""
        places = ("videos", "photos", "dataset", "weights", "registry", "loops")
        if missing := [name for name in places if not getattr(self, name)]:
            raise UsageError(f"the nightly flow needs {', '.join(missing)}; name them in [nightly]")


def _dataset(parameters: Mapping[str, Any]) -> str:
    """The dataset that the run is about; settings that are wrong are told by the run itself."""
    with contextlib.suppress(UsageError):
        return load_settings(parameters.get("config")).nightly.dataset
    return ""


@flow(name="nightly", flow_run_name=run_name("nightly", _dataset), **RUN_HOOKS)
def nightly_flow(config: str | None = None) -> list[Outcome]:
    """Take in what is new and publish it.

    Args:
        config: Settings file (TOML) with a [nightly] table; None takes stillstream.toml and the environment.
    """
    nightly = run_settings(config).nightly
    nightly.require_places()
    outcomes: list[Outcome] = []
    if nightly.sources:
        outcomes += crawl_videos_flow(nightly.sources, nightly.videos, config)
    outcomes += build_dataset_flow(nightly.videos, nightly.dataset, config)
    outcomes.append(add_model_task(nightly.registry))
    if new_clips(nightly) >= nightly.new_clips > 0:
        outcomes += _train(nightly, config)
    for version in undecided(nightly.registry):
        data = run_settings(config).promotion.data or nightly.dataset
        outcomes += promote_model_flow(nightly.registry, version, data, config)
    outcomes += animate_photos_flow(
        nightly.photos, nightly.loops, nightly.registry, config, keep_older=nightly.keep_older
    )
    outcomes += publish_gallery_flow(nightly.loops, config)
    return final_state(*outcomes)


def _train(nightly: NightlyConfig, config: str | None) -> list[Outcome]:
    """Train on the dataset as it is now, and register what came of it.

    A folder per version of the dataset: a night that was broken off goes on in it.
    """
    dataset = digest_object(join_url(nightly.dataset, DATASET_FILE))
    out = join_url(nightly.weights, dataset[:12])
    trained: list[Outcome] = train_models_flow(
        nightly.dataset,
        out,
        motion_config=nightly.motion_config,
        animator_config=nightly.animator_config,
        nproc=nightly.nproc,
        config=config,
    )
    return [*trained, add_model_task(nightly.registry, out)]


def new_clips(nightly: NightlyConfig) -> int:
    """Clips that the dataset has more than the last training on it had, whatever became of its weights."""
    before, place = 0, public_url(nightly.dataset)
    for version in ModelRegistry(nightly.registry).versions():
        told = version.lineage.get("motion", {}).get("datasets", [])
        before = next((each["clips"] for each in told if each["url"] == place), before)
    return read_dataset_json(nightly.dataset).samples - before


def undecided(registry: str) -> list[str]:
    """The candidates that the gate has not seen, such as the one just trained."""
    return [name for name, state in ModelRegistry(registry).states().items() if state == "candidate"]
