"""How Beam jobs are set up and what comes out of them."""

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

from pipelines.runner import ProgressBoard, RunnerConfig, pipeline_options, run_pipeline
from storage.errors import StoreError, UsageError


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
