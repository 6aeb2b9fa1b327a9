"""The flow that fetches videos from the web."""

import flows.prefect_environment  # noqa: F401

# isort: split
from prefect import flow

from flows.jobs import Outcome
from flows.metrics import RUN_HOOKS
from flows.outcomes import final_state, run_name
from flows.secrets import run_settings
from flows.tasks import crawl_videos_task

__all__ = ["crawl_videos_flow"]


@flow(name="crawl-videos", flow_run_name=run_name("crawl", "out"), **RUN_HOOKS)
def crawl_videos_flow(
    sources: str, out: str, config: str | None = None, workers: int | None = None
) -> list[Outcome]:
    """Fetch the videos that `sources` leads to into `out`; what is there already is skipped.

    Args:
        sources: A list, folder, web page, sitemap, feed, commons:CATEGORY or ytdlp:URL.
        out: Folder of the videos and the manifest of all links.
        config: Settings file (TOML); None takes stillstream.toml and the environment.
        workers: Worker processes; None takes the settings'.
    """
    settings = run_settings(config).override("runner", workers=workers)
    return final_state(crawl_videos_task(sources, out, settings))
