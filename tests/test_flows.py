"""The flows on a real, temporary Prefect server: what they do, how they end, and what they leave behind."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from animation_world import write_weights
from drawn_dataset import write_drawn_dataset

from flows.jobs import Outcome, TrainingJob
from flows.prefect_environment import PREFECT_DEFAULTS
from flows.settings import Settings
from storage.errors import JobError, StoreError, UsageError
from storage.manifest import LEDGER_SCHEMA, write_rows
from storage.objects import write_bytes
from storage.progress import Progress

# Prefect's client leaves its sockets to the garbage collector, which then warns.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collect_sockets() -> Iterator[None]:
    """Have them collected here and not within somebody else's test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One temporary server with an empty database for all tests here: starting it takes the longest."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=600):
        yield


def write_ledger(folder: Path, *, failed: int = 0) -> str:
    rows: list[dict[str, Any]] = [{"photo": "a.jpg", "source": "a.jpg", "status": "ok", "outputs": ["a.mp4"]}]
    rows += [
        {
            "photo": f"<b>|{n}.jpg",
            "source": "x",
            "status": "failed",
            "reason": "unreadable",
            "message": "torn",
        }
        for n in range(failed)
    ]
    write_rows(str(folder / "ledger.parquet"), rows, LEDGER_SCHEMA)
    return str(folder)


def outcome(**values: Any) -> Outcome:
    return Outcome(title="Job", rows={"photos": {"ok": 1}}, summary={}, **values)


def last_run() -> Any:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        return client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)[0]


def artifact(key: str) -> Any:
    """What the newest artifact of that key holds; None when there is none."""
    from prefect.artifacts import Artifact

    found = Artifact.get(key)
    return None if found is None else found.data


def test_a_variable_that_is_set_wins_over_our_default(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import os

    import flows.prefect_environment

    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "77")
    importlib.reload(flows.prefect_environment)
    assert os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "77"
    assert PREFECT_DEFAULTS["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_the_gallery_flow_completes_and_leaves_its_page_and_artifacts(server: None, tmp_path: Path) -> None:
    from flows.publish_gallery import publish_gallery_flow

    (result,) = publish_gallery_flow(write_ledger(tmp_path))
    assert (tmp_path / "index.html").is_file()
    assert result.summary["counts"]["ok"] == 1
    run = last_run()
    assert run.state.name == "Completed" and run.name.startswith(
        f"gallery {tmp_path.parent.name}/{tmp_path.name} 2"
    )
    assert "index.html" in artifact("gallery-summary")
    assert "index.html" in artifact("gallery-gallery")
    assert artifact("gallery-not-ok") is None


def test_a_broken_job_fails_and_says_why(server: None, tmp_path: Path) -> None:
    from flows.publish_gallery import publish_gallery_flow

    with pytest.raises(UsageError, match="no ledger"):
        publish_gallery_flow(str(tmp_path))
    run = last_run()
    assert run.state.name == "Failed" and "no ledger" in run.state.message


def test_failed_items_are_told_by_state_and_artifact(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import jobs
    from flows.animate_photos import animate_photos_flow

    item = ("<b>|x.jpg", "failed", "unreadable", "torn")
    monkeypatch.setattr(
        jobs, "animate_photos", lambda *_: outcome(items=[item], not_ok=1, failed=1, items_url="L")
    )
    (result,) = animate_photos_flow("photos", str(tmp_path))
    assert result.failed == 1
    run = last_run()
    assert (run.state.type, run.state.name) == ("COMPLETED", "CompletedWithFailedItems")
    assert "1 item failed" in run.state.message
    assert r"\<b\>\|x.jpg" in artifact("animation-not-ok")


@pytest.mark.parametrize("passing", [StoreError("the store said 503"), JobError("a worker process has died")])
def test_only_what_may_pass_is_tried_again(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passing: Exception
) -> None:
    from prefect import flow

    from flows import jobs, tasks

    calls: list[str] = []

    def flaky(*_: object) -> Outcome:
        calls.append("called")
        if len(calls) == 1:
            raise passing
        return outcome()

    def wrong(*_: object) -> Outcome:
        calls.append("called")
        raise UsageError("no photos there")

    task = tasks.animate_photos_task.with_options(retry_delay_seconds=[0, 0, 0])

    @flow
    def eager(photos: str, out: str) -> Any:
        return task(photos, out, Settings())

    monkeypatch.setattr(jobs, "animate_photos", flaky)
    assert eager("photos", str(tmp_path)).title == "Job"
    assert len(calls) == 2
    monkeypatch.setattr(jobs, "animate_photos", wrong)
    with pytest.raises(UsageError):
        eager("photos", str(tmp_path))
    assert len(calls) == 3


def test_an_evaluation_is_done_again_only_when_something_has_changed(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same clips, weights and limits: kept. A lost page, more clips or other limits: done again."""
    from flows import jobs
    from flows.evaluate_weights import evaluate_weights_flow

    calls: list[str] = []
    data, out = tmp_path / "data", tmp_path / "judged"

    def judge(*_: object) -> Outcome:
        calls.append("judged")
        for name in ("evaluation.json", "index.html"):
            write_bytes(str(out / name), b"{}")
        estimate = {"mean": 1.0, "low": 0.5, "high": None, "largest": 2.0, "samples": 2, "sources": 2}
        summary = {"tables": {"motion": {"automatic": {"iou": estimate}}}, "page": str(out / "index.html")}
        return Outcome(title="Evaluation", rows={"clips": 2}, summary=summary)

    monkeypatch.setattr(jobs, "evaluate_weights", judge)
    write_drawn_dataset(str(data))
    weights = write_weights(tmp_path)

    def evaluate(split: str = "train") -> list[Outcome]:
        outcomes: list[Outcome] = evaluate_weights_flow(str(data), str(out), weights, split)
        return outcomes

    first, second = evaluate(), evaluate()
    assert len(calls) == 1 and first[0].summary == second[0].summary
    assert (first[0].title, second[0].title) == ("Evaluation", "Evaluation, unchanged")
    assert '"95 % interval": "0.5 \\u2026 \\u2013"' in artifact("evaluation-figures")
    (out / "index.html").unlink()
    evaluate()
    assert len(calls) == 2
    evaluate(split="val")
    write_drawn_dataset(str(data), per_source=3)
    evaluate(split="val")
    assert len(calls) == 4


def test_a_training_that_was_stopped_fails_goes_on_and_is_done_once(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import jobs
    from flows.tasks import StoppedError
    from flows.train_models import train_models_flow

    resumed: list[bool] = []
    data, out = str(tmp_path / "data"), str(tmp_path / "weights")

    def train(job: TrainingJob, *_: object, **__: object) -> Outcome:
        resumed.append(job.resume)
        for name in ("training.json", "best.safetensors"):
            write_bytes(f"{job.out}/{name}", b"{}")
        return Outcome(title="Training", rows={}, summary={"interrupted": len(resumed) == 1})

    monkeypatch.setattr(jobs, "train_model", train)
    write_drawn_dataset(data)
    with pytest.raises(StoppedError):
        train_models_flow(data, out, "debug", None)
    assert last_run().state.name == "Failed" and "stopped before its end" in last_run().state.message
    train_models_flow(data, out, "debug", None)
    (again,) = train_models_flow(data, out, "debug", None)
    assert resumed == [False, True] and again.title == "Training, unchanged"
    train_models_flow(data, out, "debug", None, overwrite=True)
    assert resumed == [False, True, False]


def test_one_run_at_a_time_writes_to_a_folder(server: None) -> None:
    from flows.limits import one_writer
    from storage.errors import StillstreamError

    with one_writer("s3://lake/loops"), one_writer("s3://lake/dataset"):
        with pytest.raises(StillstreamError, match="another run has been writing to s3://lake/loops"):
            with one_writer("s3://lake/loops/", wait_seconds=1):
                pass
    with one_writer("s3://lake/loops", wait_seconds=1):
        pass


def test_secrets_come_from_blocks_unless_they_are_set(
    server: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.blocks.system import Secret

    from flows.cli import run
    from flows.secrets import export_secrets

    Secret(value="hush-hush").save("library-key")  # type: ignore[call-arg]
    monkeypatch.setenv("SET_ALREADY", "mine")
    monkeypatch.setenv("FROM_BLOCK", "")
    monkeypatch.delenv("FROM_BLOCK")
    export_secrets({"SET_ALREADY": "library-key", "FROM_BLOCK": "library-key"})
    assert os.environ["SET_ALREADY"] == "mine" and os.environ["FROM_BLOCK"] == "hush-hush"
    monkeypatch.setenv("STILLSTREAM_FLOWS__SECRETS__FROM_BLOCK", "library-key")
    assert run(["config", "check"]) == 0
    said = capsys.readouterr()
    assert "library-key" in said.out and "hush-hush" not in said.out + said.err
    with pytest.raises(UsageError, match="no Prefect Secret block 'nowhere' for OTHER"):
        export_secrets({"OTHER": "nowhere"})


def test_progress_from_another_thread_reaches_the_run(server: None) -> None:
    from threading import Thread

    from prefect import flow

    from flows.artifacts import RunProgress

    @flow
    def working() -> None:
        progress = RunProgress("thread", "Work")
        steps = [Progress(stage="render", done=done, total=2) for done in (1, 2)]
        thread = Thread(target=lambda: [progress(step) for step in steps])
        thread.start()
        thread.join()

    working()
    assert artifact("thread-progress") == 100


def test_the_nightly_flow_wants_its_places(server: None) -> None:
    from flows.nightly import nightly_flow

    with pytest.raises(UsageError, match="needs videos, photos, dataset, weights, registry, loops"):
        nightly_flow()


def test_flow_parameters_are_documented() -> None:
    from flows.animate_photos import animate_photos_flow
    from flows.build_dataset import build_dataset_flow
    from flows.crawl_videos import crawl_videos_flow
    from flows.evaluate_weights import evaluate_weights_flow
    from flows.nightly import nightly_flow
    from flows.promote_model import promote_model_flow
    from flows.publish_gallery import publish_gallery_flow
    from flows.train_models import train_models_flow

    for flow in (
        crawl_videos_flow,
        build_dataset_flow,
        evaluate_weights_flow,
        train_models_flow,
        animate_photos_flow,
        publish_gallery_flow,
        promote_model_flow,
        nightly_flow,
    ):
        for name, schema in flow.parameters.properties.items():
            assert schema.get("description"), f"{flow.name} does not say what {name} is"
