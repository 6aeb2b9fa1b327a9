"""The pipelines on worker pools: the same results as in one process, also when a pool dies in the middle.

Two engines: pools that the local runner drives, and Beam's portable job service (Prism, in Go) as any cluster
speaks it. `make cluster-test` runs these.
"""

import contextlib
import re

import pytest
import worker_pools
from cluster_work import PHOTOS, Work, when

from pipelines.runner import RunnerConfig
from storage.errors import JobError
from storage.objects import join_url, read_bytes

pytestmark = [pytest.mark.flink, pytest.mark.timeout(900)]
ENGINES = ("pools", "prism")


@pytest.fixture(autouse=True)
def one_photo_at_a_time(monkeypatch):
    """So that a handful of photos is work for two pools; it is the driver that slices."""
    monkeypatch.setattr("pipelines.animation_plan.TASKS_IN_SLICE", 1)


@pytest.fixture(scope="module")
def work(s3_server, tmp_path_factory):
    """Inputs on S3."""
    return Work(join_url(s3_server.url, "cluster"), tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def local_dataset(work):
    """The dataset that one process makes of them."""
    assert work.dataset("dataset-local", RunnerConfig()).counts["ok"] == 2
    return work.dataset_facts("dataset-local")


@pytest.fixture(scope="module")
def local_loops(work):
    """The loops that one process makes of them."""
    assert work.loops("loops-local", RunnerConfig()).counts["ok"] == PHOTOS
    return work.loop_facts("loops-local")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


class Cluster:
    """Two pools behind a front, and the runner's configuration to reach them."""

    def __init__(self, folder, engine, preload, stack):
        self.engine = engine
        self.pools = [
            worker_pools.pool(folder, f"{engine}-a"),
            worker_pools.pool(folder, f"{engine}-b", preload=preload),
        ]
        self.front = worker_pools.front(folder, self.pools)
        stack.callback(lambda: [service.stop() for service in [self.front, *self.pools]])
        job_service = stack.enter_context(worker_pools.prism(folder)) if engine == "prism" else None
        self.runner = RunnerConfig(
            name="portable" if job_service else "local",
            workers=2,
            worker_pool=self.front.address,
            job_endpoint=job_service.address if job_service else None,
        )

    def busy_pool(self):
        """The pool that got the newest worker."""
        port = int(re.findall(r"runs in the pool localhost:(\d+)", self.front.log)[-1])
        return next(pool for pool in self.pools if pool.port == port)

    def stop_pools(self):
        for pool in self.pools:
            pool.stop()

    def both_worked(self):
        """Prism asks for one worker per job: the other pool's turn comes with the next job."""
        return all("runs as process" in pool.log for pool in self.pools)


@pytest.fixture(params=ENGINES)
def cluster(request, folder):
    if request.param == "prism" and worker_pools.prism_binary() is None:
        pytest.skip("no prism, Beam's job service in Go: `make prism` builds it where Go is installed")
    with contextlib.ExitStack() as stack:
        # One of the pools forks its workers from a process that has loaded what the work needs.
        preload = "pipelines.photo_animation" if "loops" in request.node.name else "pipelines.transforms"
        yield Cluster(folder, request.param, preload, stack)


def test_a_dataset_is_the_same(work, local_dataset, cluster):
    name = f"dataset-{cluster.engine}"
    work.dataset(name, cluster.runner)
    assert work.dataset_facts(name) == local_dataset
    assert cluster.engine == "prism" or cluster.both_worked()


def test_a_dataset_is_the_same_although_a_pool_dies(work, local_dataset, cluster):
    name = f"dataset-killed-{cluster.engine}"

    def one_is_done():
        found = [key for key in work.keys(name) if key.startswith("parts/") and key.endswith(".json")]
        return any("/sources/" not in key for key in found)

    with (
        when(one_is_done, lambda: cluster.busy_pool().kill()),
        pytest.raises(JobError, match="a worker process has died .*the same command goes on"),
    ):
        work.dataset(name, cluster.runner)
    assert "dataset.json" not in work.keys(name)
    again = work.dataset(name, cluster.runner)  # with the pool that is left
    assert again.sources["sources_reused"] >= 1
    assert work.dataset_facts(name) == local_dataset
    assert cluster.both_worked()

    cluster.stop_pools()
    with pytest.raises(JobError, match=re.escape(cluster.front.address)):
        work.dataset(f"{name}-again", cluster.runner)


def test_loops_are_the_same(work, local_loops, cluster):
    name = f"loops-{cluster.engine}"
    work.loops(name, cluster.runner)
    assert work.loop_facts(name) == local_loops
    assert cluster.engine == "prism" or cluster.both_worked()


def test_loops_are_the_same_although_a_pool_dies(work, local_loops, cluster):
    name = f"loops-killed-{cluster.engine}"

    def sidecars():
        keys = work.keys(name)
        return [f"{key[:-4]}.json" for key in keys if key.endswith(".mp4") and f"{key[:-4]}.json" in keys]

    with (
        when(sidecars, lambda: cluster.busy_pool().kill()),
        pytest.raises(JobError, match="a worker process has died .*the same command goes on"),
    ):
        work.loops(name, cluster.runner)
    finished = {key: read_bytes(join_url(work.out(name), key)) for key in sidecars()}
    assert 1 <= len(finished) < PHOTOS
    assert work.loops(name, cluster.runner).counts == {
        "attempted": PHOTOS + 1, "ok": PHOTOS, "rejected": 0, "failed": 1,
    }  # fmt: skip
    assert work.loop_facts(name) == local_loops
    # They say how long rendering took: what was finished has not been rendered again.
    assert {key: read_bytes(join_url(work.out(name), key)) for key in finished} == finished
    assert cluster.both_worked()
