"""Apache Flink on this machine: the cluster itself, and the pipelines on it where there is a job server."""

import contextlib
import os
import time
from pathlib import Path

import pytest
import worker_pools
from cluster_work import PHOTOS, Work, when
from flink_cluster import ROOT, FlinkCluster, why_no_flink

from pipelines.runner import FLINK_VERSION, RunnerConfig
from pipelines.worker_pool import PRELOADED
from storage.objects import join_url

pytestmark = [pytest.mark.flink, pytest.mark.timeout(1200)]
JAR_VARIABLE = "BEAM_FLINK_JOB_SERVER_JAR"
SUMS = """
CREATE TABLE numbers (n BIGINT) WITH (
    'connector' = 'datagen', 'rows-per-second' = '40', 'number-of-rows' = '1200',
    'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '1200');
CREATE TABLE sums (rest BIGINT, total BIGINT, items BIGINT) WITH (
    'connector' = 'filesystem', 'path' = 'file://{out}', 'format' = 'csv');
INSERT INTO sums SELECT n % 7, SUM(n), COUNT(n) FROM numbers GROUP BY n % 7;
"""


@pytest.fixture
def cluster(tmp_path):
    if missing := why_no_flink():
        pytest.skip(missing)
    running = FlinkCluster(tmp_path / "flink")
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def job_server_jar():
    named = os.environ.get(JAR_VARIABLE)
    fetched = sorted((ROOT / "build" / "flink").glob(f"beam-runners-flink-{FLINK_VERSION}-job-server-*.jar"))
    jar = named or (str(fetched[-1]) if fetched else None)
    if jar is None:
        pytest.skip(
            f"NOT TRIED ON FLINK: no beam-runners-flink-{FLINK_VERSION}-job-server jar; `make flink-jar` "
            f"fetches it where Maven Central has it, or set {JAR_VARIABLE}"
        )
    return jar


def test_a_job_of_the_cluster_ends_right_although_a_task_manager_dies(cluster, tmp_path):
    client = cluster.sql(SUMS.format(out=tmp_path / "sums"))
    busy = _machine_at_work(cluster, client)
    cluster.kill(busy)
    assert client.wait(300) == 0, cluster.logs()
    found = {}
    for path in (tmp_path / "sums").rglob("*"):
        if path.is_file() and not path.name.startswith((".", "_")):
            for line in path.read_text().split():
                rest, *numbers = map(int, line.split(","))
                assert rest not in found, "a sum was written twice"
                found[rest] = tuple(numbers)
    wanted = {rest: [n for n in range(1, 1201) if n % 7 == rest] for rest in range(7)}
    assert found == {rest: (sum(numbers), len(numbers)) for rest, numbers in wanted.items()}
    cluster.wait(1)
    (job,) = cluster.get("/jobs/overview")["jobs"]
    assert job["state"] == "FINISHED"


def test_the_pipelines_end_alike_although_a_machine_of_the_cluster_dies(
    job_server_jar, cluster, s3_server, tmp_path
):
    work = Work(join_url(s3_server.url, "flink"), tmp_path / "inputs")
    assert work.dataset("dataset-local", RunnerConfig()).counts["ok"] == 2
    assert work.loops("loops-local", RunnerConfig()).counts["ok"] == PHOTOS
    with contextlib.ExitStack() as stack:
        pools = [worker_pools.pool(tmp_path, name, preload=",".join(PRELOADED)) for name in ("a", "b")]
        front = worker_pools.front(tmp_path, pools)
        stack.callback(lambda: [service.stop() for service in [*pools, front]])
        runner = RunnerConfig(
            name="flink", workers=2, flink_master=cluster.rest, worker_pool=front.address,
            job_server_jar=job_server_jar,
        )  # fmt: skip
        with when(lambda: _parts(work) >= 2, lambda: cluster.kill("TaskManager-1")):
            work.dataset("dataset-flink", runner)
        assert work.dataset_facts("dataset-flink") == work.dataset_facts("dataset-local")
        with when(lambda: _any_loop(work), pools[0].kill):
            work.loops("loops-flink", runner)
        assert work.loop_facts("loops-flink") == work.loop_facts("loops-local")


def _parts(work):
    found = [key for key in work.keys("dataset-flink") if key.startswith("parts/") and key.endswith(".json")]
    return sum("/sources/" not in key for key in found)


def _any_loop(work):
    return any(key.endswith(".mp4") for key in work.keys("loops-flink"))


def _machine_at_work(cluster, client):
    """A TaskManager with a slot in use, once tasks of the job run."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and client.poll() is None:
        with contextlib.suppress(OSError):
            jobs = cluster.get("/jobs/overview")["jobs"]
            machines = cluster.get("/taskmanagers")["taskmanagers"]
            busy = [each["id"] for each in machines if each["freeSlots"] < each["slotsNumber"]]
            if busy and jobs and jobs[0]["tasks"]["running"]:
                return busy[0]
        time.sleep(0.2)
    raise AssertionError(f"the job does not run: {cluster.logs()}")


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr("flink_cluster.FLINK_HOME", Path("/nowhere"))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert "make flink" in why_no_flink()
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "Java" in why_no_flink()
