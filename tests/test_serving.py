"""`stillstream flows serve` on a real Prefect server: schedules, runs, states, artifacts, cancels, metrics.

The photo library lies on a real S3 server whose key only a Prefect Secret block knows.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from animation_world import draw_photo, jpeg_bytes, write_weights
from prefect_server import PrefectServer, free_port, wait_for
from seaweed import SeaweedServer

from storage.objects import exists, join_url, list_objects, write_bytes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SECRET_VARIABLE = "AWS_SECRET_ACCESS_KEY"
PROGRAM = Path(sys.executable)
MANY = 40


@dataclass(frozen=True, slots=True)
class World:
    """A server, the process that serves the flows, and the places they work on."""

    server: PrefectServer
    process: subprocess.Popen[bytes]
    metrics: str
    settings: Path
    photos: str
    loops: str
    log: Path

    def scrape(self) -> dict[str, float]:
        """What Prometheus gets: name with labels → value."""
        with urllib.request.urlopen(self.metrics, timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        pairs = [line.rpartition(" ") for line in lines if line.startswith("stillstream_")]
        return {name: float(value) for name, _, value in pairs}

    def children(self) -> list[psutil.Process]:
        """The processes that serving has below it."""
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, s3_server: SeaweedServer) -> Iterator[World]:
    """One server and one serving process for all tests here: both take long to start."""
    folder = tmp_path_factory.mktemp("prefect")
    library = f"{s3_server.url}/{uuid.uuid4().hex}"
    photos, loops = f"{library}/photos", f"{library}/loops"
    for number in range(2):
        write_bytes(join_url(photos, f"good {number}.jpg"), jpeg_bytes(draw_photo(number)))
    write_bytes(join_url(photos, "broken.jpg"), b"this is no picture")
    settings = folder / "settings.toml"
    settings.write_text(settings_text(folder, photos, loops, metrics_port := free_port()))
    server = PrefectServer(folder / "home")
    (folder / "home").mkdir()
    server.start()
    log = folder / "serve.log"
    try:
        write_secret_block(server, s3_server.environment[SECRET_VARIABLE])
        environment = {**os.environ, **server.environment}
        del environment[SECRET_VARIABLE]
        command = [str(PROGRAM.with_name("stillstream")), "flows", "serve", "--config", str(settings)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--log-format", "json"], env=environment, cwd=folder, stderr=output, stdout=output
            )
        try:
            metrics = f"http://127.0.0.1:{metrics_port}/metrics"
            wait_for("seven deployments", lambda: len(server.deployments()) >= 7)
            yield World(server, process, metrics, settings, photos, loops, log)
            stop_serving(process, log)
        finally:
            process.kill()
            process.wait()
    finally:
        server.stop()


def settings_text(folder: Path, photos: str, loops: str, metrics_port: int) -> str:
    return f"""
[animate]
checkpoint = "{write_weights(folder)}"
renderer = "splat"
seconds = 0.3

[nightly]
photos = "{photos}"
loops = "{loops}"

[flows]
metrics_port = {metrics_port}
schedules = {{nightly = "0 3 * * *", animate-photos = "0 * * * *"}}
secrets = {{{SECRET_VARIABLE} = "library-key"}}
"""


def write_secret_block(server: PrefectServer, value: str) -> None:
    """A Secret block, made as a person makes it: by Prefect itself."""
    code = (
        "import sys; from prefect.blocks.system import Secret; Secret(value=sys.argv[1]).save('library-key')"
    )
    subprocess.run(
        [str(PROGRAM), "-c", code, value], env={**os.environ, **server.environment}, check=True, timeout=300
    )


def stop_serving(process: subprocess.Popen[bytes], log: Path) -> None:
    """SIGTERM ends it and everything below it."""
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    _, alive = psutil.wait_procs(below, timeout=60)
    assert alive == [], log.read_text()


def run_facts(run: dict[str, Any]) -> str:
    return f"{run['state']['name']}: {run['state']['message']}"


def test_schedules_are_there_and_become_runs(world: World) -> None:
    found = world.server.deployments()
    (hourly,) = found["animate-photos"]["schedules"]
    assert hourly["active"] and hourly["schedule"]["cron"] == "0 * * * *"
    (nightly,) = found["nightly"]["schedules"]
    assert not nightly["active"], "its places are not all named"
    assert found["animate-photos"]["parameters"]["out"] == world.loops
    assert found["animate-photos"]["global_concurrency_limit"]["limit"] == 1
    body = {
        "deployments": {"name": {"any_": ["animate-photos"]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    planned = wait_for("planned runs", lambda: world.server.ask("/flow_runs/filter", body), 120)
    assert all(run["expected_start_time"][14:16] == "00" for run in planned)


def test_a_run_with_a_failed_item_completes_and_says_so(world: World) -> None:
    run_id = world.server.run("animate-photos")
    run = world.server.ended(run_id)
    assert run["state"]["name"] == "CompletedWithFailedItems", world.server.log_of(run_id)
    assert "1 item failed" in run_facts(run)
    library = world.loops.split("/")[-2]
    assert run["name"].startswith(f"animate {library}/loops 2")
    left = world.server.artifacts(run_id)
    assert "attempted 3, ok 2" in left["animation-summary"]["data"]
    assert "broken.jpg" in left["animation-not-ok"]["data"]
    assert left["animation-sheet"]["data"].startswith("data:image/jpeg;base64,")
    assert left["animation-progress"]["data"] == 100
    assert "animate: 3 of 3" in world.server.log_of(run_id)
    assert exists(join_url(world.loops, "good 0.mp4"))
    scraped = world.scrape()
    assert scraped[f'stillstream_items{{job="animation",out="{world.loops}",status="failed"}}'] == 1
    assert scraped['stillstream_runs_total{flow="animate-photos",state="CompletedWithFailedItems"}'] == 1
    assert scraped['stillstream_stage_seconds_total{job="animation",stage="render"}'] > 0


def test_a_broken_job_fails(world: World) -> None:
    run = world.server.ended(world.server.run("publish-gallery", {"url": f"{world.photos}/nowhere"}))
    assert run["state"]["type"] == "FAILED" and "no ledger" in run_facts(run)


def test_a_cancelled_run_is_taken_up_by_the_next(world: World) -> None:
    """Cancelled in the middle: nothing runs on, what is done stays done, the rest is done by a rerun."""
    photos, loops = f"{world.photos}-many", f"{world.loops}-many"
    for number in range(MANY):
        write_bytes(join_url(photos, f"{number:02}.jpg"), jpeg_bytes(draw_photo(number, (192, 256))))
    parameters = {"photos": photos, "out": loops}
    run_id = world.server.run("animate-photos", parameters)
    wait_for("the first loops", lambda: loops_at(loops) >= 3, 400)
    world.server.cancel(run_id)
    run = world.server.ended(run_id)
    assert run["state"]["type"] == "CANCELLED", run_facts(run)
    wait_for("the end of its processes", lambda: not world.children(), 60)
    done = loops_at(loops)
    assert 3 <= done < MANY
    again = world.server.run("animate-photos", parameters)
    assert world.server.ended(again)["state"]["name"] == "Completed", world.server.log_of(again)
    assert loops_at(loops) == MANY
    summary = world.server.artifacts(again)["animation-summary"]["data"]
    (before,) = [row["value"] for row in json.loads(summary) if row[""] == "done before"]
    assert int(before) >= done - 1, "finished work was done again"
    counted = {name: value for name, value in world.scrape().items() if "runs_total" in name}
    assert counted.get('stillstream_runs_total{flow="animate-photos",state="Cancelled"}') == 1, counted


def test_a_work_pool_gets_the_same_deployments(world: World) -> None:
    """prefect.yaml, deployed by Prefect's own command, makes what `flows serve` has made."""
    facts = ("entrypoint", "parameters", "tags", "description", "enforce_parameter_schema")
    limits = ("concurrency_options",)
    served = world.server.deployments()
    environment = {**os.environ, **world.server.environment}
    here = world.settings.parent
    tools = PROGRAM.parent
    yaml = [str(tools / "stillstream"), "flows", "yaml", "--config", str(world.settings), "--out"]
    subprocess.run([*yaml, str(here / "prefect.yaml")], check=True, timeout=200)
    world.server.ask("/work_pools/", {"name": "stillstream", "type": "process"})
    deploy = [str(tools / "prefect"), "--no-prompt", "deploy", "--all"]
    subprocess.run(deploy, env=environment, cwd=here, check=True, timeout=400, capture_output=True)
    pooled = world.server.deployments()
    assert pooled.keys() == served.keys()
    for name, deployment in pooled.items():
        assert deployment["work_pool_name"] == "stillstream"
        assert {each: deployment[each] for each in facts} == {each: served[name][each] for each in facts}
        assert plans(deployment) == plans(served[name])
        assert {each: deployment[each] for each in limits} == {each: served[name][each] for each in limits}


def test_its_log_is_json_without_secrets(world: World, s3_server: SeaweedServer) -> None:
    text = world.log.read_text()
    assert s3_server.environment[SECRET_VARIABLE] not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert any("animate: 3 of 3" in line.get("message", "") and line.get("flow_run_name") for line in lines)


def loops_at(url: str) -> int:
    with contextlib.suppress(Exception):
        return sum(1 for each in list_objects(url) if each.key.endswith(".mp4"))
    return 0


def plans(deployment: dict[str, Any]) -> list[Any]:
    return [
        (each["active"], each["schedule"]["cron"], each["schedule"]["timezone"])
        for each in deployment["schedules"]
    ]
