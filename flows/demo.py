"""The demo: the whole way once, on drawn landscapes or on one's own videos and photos.

    scenes → dataset → training → evaluation → loops → gallery

Scenes are drawn in processes of their own while Prefect's temporary server starts; the rest is
`flows.demo_flow`.
"""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.errors import UsageError
from storage.objects import is_local, join_url, list_objects
from storage.progress import OnProgress, Progress

if TYPE_CHECKING:
    from flows.jobs import Outcome

__all__ = ["DemoPlan", "Drawing", "run_demo"]

VIDEO_SIZE, PHOTO_SIZE = (180, 320), (360, 640)  # height, width
VIDEO_FRAMES = 70
TRAINING_SEEDS, HELD_OUT_SEEDS, PHOTO_SEEDS = (11, 12, 13), (21,), (31,)
PREFECT_FOLDER = ".prefect"


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoPlan:
    """Where everything of one demo lies. `held_out`: videos of scenes that are not trained on, when drawn."""

    out: str
    videos: str
    photos: str
    held_out: str | None

    def place(self, *names: str) -> str:
        """A URL below the demo's folder."""
        return join_url(self.out, *names)


class Drawing:
    """Scenes that are being drawn."""

    def __init__(self, scenes: list[Future[None]]) -> None:
        self._scenes = scenes

    def tell(self, on_progress: OnProgress) -> None:
        """Say how many are done; nothing when both videos and photos were given."""
        if not self._scenes:
            return
        done = sum(scene.done() for scene in self._scenes)
        on_progress(Progress(stage="draw scenes", done=done, total=len(self._scenes)))

    def wait(self, on_progress: OnProgress) -> None:
        """Wait for all of them; an error of a drawing process is raised here."""
        for scene in as_completed(self._scenes):
            scene.result()
            self.tell(on_progress)


def run_demo(
    out: str, *, videos: str | None = None, photos: str | None = None, on_progress: OnProgress
) -> "Outcome":
    """Run the demo into the folder `out`. Raises UsageError for wrong places."""
    if not is_local(out):
        raise UsageError(f"the demo writes to a folder of this machine, got {out}; give a path by --out")
    for given in filter(None, (videos, photos)):
        next(iter(list_objects(given)))  # raises UsageError when nothing is there
    plan = DemoPlan(
        out=out,
        videos=videos or join_url(out, "videos"),
        photos=photos or join_url(out, "photos"),
        held_out=None if videos else join_url(out, "held_out_videos"),
    )
    _keep_prefect_to_the_folder(out)
    with _drawing(plan, videos=videos is None, photos=photos is None) as drawing:
        drawing.tell(on_progress)
        from flows.demo_flow import demo_flow

        (outcome,) = demo_flow(plan, drawing, on_progress)
    return outcome


def _keep_prefect_to_the_folder(out: str) -> None:
    """A demo leaves nothing in the home folder; what goes wrong is told by us. What is set already wins."""
    os.environ.setdefault("PREFECT_HOME", os.path.abspath(os.path.join(out, PREFECT_FOLDER)))
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")


@contextmanager
def _drawing(plan: DemoPlan, *, videos: bool, photos: bool) -> Iterator[Drawing]:
    """Begin to draw what the demo was not given."""
    from pipelines.sample_data import SCENES

    # A forked child would inherit locks that other libraries' threads hold.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        scenes: list[Future[None]] = []
        for kind in SCENES:
            if videos and plan.held_out is not None:
                scenes += [pool.submit(_draw_video, plan.videos, kind, seed) for seed in TRAINING_SEEDS]
                scenes += [pool.submit(_draw_video, plan.held_out, kind, seed) for seed in HELD_OUT_SEEDS]
            if photos:
                scenes += [pool.submit(_draw_photo, plan.photos, kind, seed) for seed in PHOTO_SEEDS]
        try:
            yield Drawing(scenes)
        finally:
            pool.shutdown(cancel_futures=True)


def _draw_video(url: str, kind: str, seed: int) -> None:
    from pipelines.sample_data import write_sample_videos

    write_sample_videos(url, kinds=[kind], seeds=[seed], size=VIDEO_SIZE, frames=VIDEO_FRAMES)


def _draw_photo(url: str, kind: str, seed: int) -> None:
    from pipelines.sample_data import write_sample_photos

    write_sample_photos(url, kinds=[kind], seeds=[seed], size=PHOTO_SIZE)
