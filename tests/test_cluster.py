"""The pipelines on worker pools: the same results as in one process, also when a pool dies in the middle.

Two engines: pools that the local runner drives, and Beam's portable job service (Prism, in Go) as any cluster
speaks it. `make flink-test` runs these and, where its job server is to be had, Flink itself.
"""

import contextlib
import re
from functools import partial

import pytest
import worker_pools
from cluster_work import PHOTOS, Work, when

from pipelines.runner import RunnerConfig
from pipelines.worker_pool import PRELOADED
from storage.errors import JobError
from storage.objects import join_url, list_objects

pytestmark = [pytest.mark.flink, pytest.mark.timeout(900)]
ENGINES = ("pools", "prism")


@pytest.fixture(scope="module")
def work(s3_server, tmp_path_factory):
    """Inputs on S3, and what the local runner makes of them."""
    made = Work(join_url(s3_server.url, "cluster"), tmp_path_factory.mktemp("inputs"))
    assert made.dataset("dataset-local", RunnerConfig())["ok"] == 2
    assert made.loops("loops-local", RunnerConfig())["ok"] == PHOTOS
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


class Cluster:
    """Two pools behind a front, and the runner's configuration to reach them."""

    def __init__(self, folder, engine, stack):
        self.folder = folder
        pool = partial(worker_pools.pool, folder, preload=",".join(PRELOADED))
        self.pools = [pool(f"{engine}-{name}") for name in ("a", "b")]
        self.front = worker_pools.front(folder, self.pools)
        stack.callback(lambda: [service.stop() for service in [*self.pools, self.front]])
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

    def both_worked(self):
        return all("runs as process" in pool.log for pool in self.pools)


@pytest.fixture(params=ENGINES)
def cluster(request, folder):
    if request.param == "prism" and worker_pools.prism_binary() is None:
        pytest.skip("no prism, Beam's job service in Go: `make prism` builds it where Go is installed")
    with contextlib.ExitStack() as stack:
        yield Cluster(folder, request.param, stack)


def test_a_dataset_is_the_same_although_a_pool_dies(work, cluster, request):
    name = f"dataset-{request.node.callspec.params['cluster']}"
    parts = join_url(work.out(name), "parts")

    def two_are_done():
        found = [key for key in work.keys(name) if key.startswith("parts/") and key.endswith(".json")]
        return sum("/sources/" not in key for key in found) >= 2

    with when(two_are_done, lambda: cluster.busy_pool().kill()), pytest.raises(JobError, match="worker"):
        work.dataset(name, cluster.runner)
    assert not any(key == "dataset.json" for key in work.keys(name))
    assert list(list_objects(parts))
    work.dataset(name, cluster.runner)  # with the pool that is left
    assert cluster.both_worked()
    assert work.dataset_facts(name) == work.dataset_facts("dataset-local")


def test_loops_are_the_same_although_a_pool_dies(work, cluster, request):
    name = f"loops-{request.node.callspec.params['cluster']}"

    def one_is_done():
        return any(key.endswith(".mp4") for key in work.keys(name))

    with when(one_is_done, lambda: cluster.busy_pool().kill()), pytest.raises(JobError, match="worker"):
        work.loops(name, cluster.runner)
    assert work.loops(name, cluster.runner) == {
        "attempted": PHOTOS + 1, "ok": PHOTOS, "rejected": 0, "failed": 1,
    }  # fmt: skip
    assert cluster.both_worked()
    assert work.loop_facts(name) == work.loop_facts("loops-local")


def test_both_undisturbed(work, cluster, request):
    engine = request.node.callspec.params["cluster"]
    work.dataset(f"calm-dataset-{engine}", cluster.runner)
    work.loops(f"calm-loops-{engine}", cluster.runner)
    assert cluster.both_worked()
    assert work.dataset_facts(f"calm-dataset-{engine}") == work.dataset_facts("dataset-local")
    assert work.loop_facts(f"calm-loops-{engine}") == work.loop_facts("loops-local")
