"""How Beam jobs are set up and what comes out of them."""

from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions
from pool_jobs import KillYourself

from pipelines.runner import ProgressBoard, RunnerConfig, pipeline_options, run_pipeline
from storage.errors import JobError, StoreError, UsageError


class Count(beam.DoFn):
    """Counts and notes every item."""

    def __init__(self, board):
        self.board = board

    def process(self, item):
        beam.metrics.Metrics.counter("stillstream", "items").inc()
        self.board.note("odd" if item % 2 else "even")
        yield item


def explode(item):
    raise StoreError(f"the store is full at {item}")


def test_dask_is_refused_with_the_reason():
    with pytest.raises(UsageError, match="loses data"):
        RunnerConfig(name="dask")


def test_wrong_configurations_are_refused():
    with pytest.raises(UsageError, match="choose one of local"):
        RunnerConfig(name="prism")
    with pytest.raises(UsageError, match="workers"):
        RunnerConfig(workers=0)
    with pytest.raises(UsageError, match="--name=value"):
        RunnerConfig(options=("parallelism=3",))


def test_local_options_name_processes():
    one = pipeline_options(RunnerConfig()).view_as(DirectOptions)
    two = pipeline_options(RunnerConfig(workers=2)).view_as(DirectOptions)
    assert (one.direct_num_workers, two.direct_num_workers) == (1, 2)


def test_options_of_the_cluster_pass_through():
    given = ("--flink_master=host:8081", "--environment_type=EXTERNAL")
    options = pipeline_options(RunnerConfig(name="flink", workers=3, options=given))
    plain = options.get_all_options()
    assert options.view_as(StandardOptions).runner == "FlinkRunner"
    assert plain["flink_master"] == "host:8081"
    assert plain["environment_type"] == "EXTERNAL"
    assert (int(plain["parallelism"]), int(plain["sdk_worker_parallelism"])) == (3, 3)


def test_flink_is_told_where_its_cluster_and_its_workers_are(tmp_path):
    jar = tmp_path / "job-server.jar"
    jar.touch()
    config = RunnerConfig(name="flink", workers=4, flink_master="flink:8081", job_server_jar=str(jar))
    plain = pipeline_options(config).get_all_options()
    assert (plain["flink_master"], plain["flink_version"]) == ("flink:8081", "1.20")
    assert plain["flink_job_server_jar"] == str(jar)
    assert (plain["environment_type"], plain["environment_config"]) == ("EXTERNAL", "localhost:50000")
    assert int(plain["parallelism"]) == 4
    other = RunnerConfig(name="flink", flink_master="flink:8081", worker_pool="pools:1")
    assert pipeline_options(other).get_all_options()["environment_config"] == "pools:1"
    loopback = RunnerConfig(name="flink", flink_master="flink:8081", options=("--environment_type=LOOPBACK",))
    assert pipeline_options(loopback).get_all_options()["environment_config"] is None


def test_any_job_service_and_dataflow_are_reached_by_options():
    config = RunnerConfig(name="portable", workers=3, job_endpoint="jobs:8099")
    plain = pipeline_options(config).get_all_options()
    assert (plain["runner"], plain["job_endpoint"]) == ("PortableRunner", "jobs:8099")
    config = RunnerConfig(name="dataflow", workers=9, options=("--project=mine", "--region=europe-west6"))
    plain = pipeline_options(config).get_all_options()
    assert (plain["runner"], plain["num_workers"], plain["project"]) == ("DataflowRunner", 9, "mine")
    assert plain["environment_type"] is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "flink"}, "--flink-master HOST:PORT"),
        ({"name": "portable"}, "--job-endpoint HOST:PORT"),
        ({"name": "flink", "flink_master": "flink"}, "HOST:PORT"),
        ({"worker_pool": "pool:many"}, "worker_pool is HOST:PORT"),
        ({"name": "flink", "flink_master": "flink:1", "job_server_jar": "/nowhere.jar"}, "no job server jar"),
    ],
)
def test_a_cluster_without_its_address_is_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        RunnerConfig(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["in the last stage", "before another stage"])
def test_a_local_worker_that_is_killed_ends_the_job_instead_of_hanging_it(monkeypatch, caplog, where):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find this transform

    def build(pipeline, board):
        done = pipeline | beam.Create(range(4)) | beam.Reshuffle() | beam.ParDo(KillYourself())
        return done if "last" in where else done | "Spread" >> beam.Reshuffle() | beam.Map(str)

    with pytest.raises(JobError, match="a worker process has died"):
        run_pipeline(build, RunnerConfig(workers=2), stage="die")
    said = caplog.text
    assert "direct_running_mode" not in said and "data plane" not in said and "Error closing" not in said


def test_a_job_counts_and_tells_its_progress():
    seen = []

    def build(pipeline, board):
        return pipeline | beam.Create(range(10)) | beam.ParDo(Count(board))

    result = run_pipeline(build, RunnerConfig(), stage="count", total=10, on_progress=seen.append)
    assert result.counters == {"items": 10}
    assert seen[-1].done == seen[-1].total == 10
    assert seen[-1].counts == {"even": 5, "odd": 5}


def test_an_error_of_ours_comes_out_as_itself():
    def build(pipeline, board):
        return pipeline | beam.Create([7]) | beam.Map(explode)

    with pytest.raises(StoreError, match="full at 7"):
        run_pipeline(build, RunnerConfig(), stage="explode")


def test_a_worker_without_the_board_is_silent(tmp_path):
    ProgressBoard(tmp_path / "elsewhere").note("ok")
    assert not (tmp_path / "elsewhere").exists()
