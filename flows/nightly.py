"""The nightly flow: new videos → dataset, training when enough is new, new photos → loops, gallery."""

import flows.prefect_environment  # noqa: F401

# isort: split
from dataclasses import dataclass

from prefect import flow

from flows.animate_photos import animate_photos_flow
from flows.build_dataset import build_dataset_flow
from flows.jobs import Outcome
from flows.metrics import RUN_HOOKS
from flows.outcomes import final_state, run_name
from flows.publish_gallery import publish_gallery_flow
from flows.settings import load_settings
from flows.train_models import train_models_flow
from storage.dataset_format import DATASET_FILE, read_dataset_json
from storage.errors import UsageError
from storage.objects import exists, join_url

__all__ = ["NightlyConfig", "nightly_flow"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NightlyConfig:
    """Where the nightly flow reads and writes.

    `videos`, `photos`: what is new there is taken in. `dataset`, `weights`, `loops`: folders it writes.
    `new_clips`: train when the dataset has grown by so many clips; 0 never trains. The loops are made with
    the weights found at `weights`, else with those in the package. `motion_config` and `animator_config` name
    the trainings, `nproc` their processes on this machine.
    """

    videos: str = ""
    photos: str = ""
    dataset: str = ""
    weights: str = ""
    loops: str = ""
    new_clips: int = 100
    motion_config: str = "default"
    animator_config: str = "default"
    nproc: int = 1

    def __post_init__(self) -> None:
        if self.new_clips < 0:
            raise UsageError(f"new_clips must be 0 or more, got {self.new_clips}")
        if self.nproc < 1:
            raise UsageError(f"nproc must be at least 1, got {self.nproc}")

    def require_places(self) -> None:
        """Raise UsageError for a place that is not named; they have no default."""
        places = ("videos", "photos", "dataset", "weights", "loops")
        if missing := [name for name in places if not getattr(self, name)]:
            raise UsageError(f"the nightly flow needs {', '.join(missing)}; name them in [nightly]")


@flow(name="nightly", flow_run_name=run_name("nightly", "config"), **RUN_HOOKS)
def nightly_flow(config: str | None = None) -> list[Outcome]:
    """Take in what is new and publish it.

    Args:
        config: Settings file (TOML) with a [nightly] table; None takes stillstream.toml and the environment.
    """
    nightly = load_settings(config).nightly
    nightly.require_places()
    before = _clips(nightly.dataset)
    outcomes = build_dataset_flow(nightly.videos, nightly.dataset, config)
    if nightly.new_clips and _clips(nightly.dataset) - before >= nightly.new_clips:
        outcomes += train_models_flow(
            nightly.dataset,
            nightly.weights,
            motion_config=nightly.motion_config,
            animator_config=nightly.animator_config,
            nproc=nightly.nproc,
        )
    outcomes += animate_photos_flow(nightly.photos, nightly.loops, _weights(nightly.weights), config)
    outcomes += publish_gallery_flow(nightly.loops, config)
    return final_state(*outcomes)


def _clips(dataset: str) -> int:
    """Clips in a dataset; none when it is not there yet."""
    return read_dataset_json(dataset).samples if exists(join_url(dataset, DATASET_FILE)) else 0


def _weights(url: str) -> str | None:
    """The trained weights where there are any, else None, which means those in the package."""
    return url if exists(join_url(url, "motion", "best.safetensors")) else None
