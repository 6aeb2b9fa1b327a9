"""The deployments: one definition behind `flows serve` and prefect.yaml, filled from the settings."""

from pathlib import Path
from typing import Any

import pytest

from flows.cli import run
from flows.deployments import DEPLOYMENTS, FlowsConfig, deployment_parts, prefect_yaml, served_deployments
from flows.settings import Settings, load_settings
from storage.errors import UsageError

ROOT = Path(__file__).parents[1]
PLACES = {
    "videos": "s3://lake/videos",
    "photos": "s3://lake/photos",
    "dataset": "s3://lake/dataset",
    "weights": "s3://lake/weights",
    "registry": "s3://lake/registry",
    "loops": "s3://lake/loops",
}


def parts(name: str, settings: Settings, config_file: str | None = None) -> dict[str, Any]:
    (deployment,) = [each for each in DEPLOYMENTS if each.name == name]
    return deployment_parts(deployment, settings, config_file)


def test_prefect_yaml_is_the_one_that_the_code_makes() -> None:
    assert (ROOT / "prefect.yaml").read_text() == prefect_yaml(Settings()), "run `stillstream flows yaml`"


def test_serving_and_prefect_yaml_agree() -> None:
    """Name by name and field by field, with schedules and places that the defaults do not have."""
    import yaml

    schedules = {"nightly": "30 2 * * *", "animate-photos": "0 * * * *"}
    settings = Settings(
        values={"nightly": PLACES, "flows": {"schedules": schedules, "timezone": "Europe/Rome"}}
    )
    written = {each["name"]: each for each in yaml.safe_load(prefect_yaml(settings, "s.toml"))["deployments"]}
    served = {each.name: each for each in served_deployments(settings, "s.toml")}
    assert written.keys() == served.keys() == {each.name for each in DEPLOYMENTS}
    for name, deployment in served.items():
        text = written[name]
        assert deployment.entrypoint == text["entrypoint"] and deployment.flow_name == name
        assert deployment.parameters == text["parameters"] and deployment.tags == text["tags"]
        assert deployment.description == text["description"] != ""
        planned = [
            {"cron": each.schedule.cron, "timezone": each.schedule.timezone, "active": each.active}
            for each in deployment.schedules
        ]
        assert planned == text["schedules"]
        assert deployment.concurrency_limit == text["concurrency_limit"]["limit"] == 1


def test_a_schedule_is_active_when_all_is_named() -> None:
    schedules = {"nightly": "0 3 * * *", "animate-photos": "0 * * * *"}
    bare = Settings(values={"flows": {"schedules": schedules}})
    full = bare.override("nightly", **PLACES)
    for name in schedules:
        assert [each["active"] for each in parts(name, bare)["schedules"]] == [False]
        assert [each["active"] for each in parts(name, full)["schedules"]] == [True]
    assert parts("publish-gallery", full)["schedules"] == []
    assert parts("animate-photos", full)["parameters"] == {"photos": PLACES["photos"], "out": PLACES["loops"]}


def test_runs_read_the_settings_they_were_served_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parts("nightly", Settings(), "own.toml")["parameters"] == {"config": str(tmp_path / "own.toml")}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"schedules": {"monthly": "0 0 1 * *"}}, "no deployment 'monthly'"),
        ({"schedules": ["0 3 * * *"]}, "schedules must be a table of texts, got list"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"metrics_port": 70_000}, "metrics_port"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        FlowsConfig(**values)


@pytest.mark.parametrize(
    "flows", [{"schedules": {"nightly": "every night"}}, {"timezone": "Atlantis"}], ids=["cron", "zone"]
)
def test_a_schedule_that_is_none_is_refused(flows: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is no schedule"):
        parts("nightly", Settings(values={"flows": flows}))


def test_the_environment_has_neither_hyphens_nor_small_letters() -> None:
    variables = {
        "STILLSTREAM_FLOWS__SCHEDULES__ANIMATE_PHOTOS": "0 * * * *",
        "STILLSTREAM_FLOWS__SECRETS__AWS_SECRET_ACCESS_KEY": "library-key",
    }
    config = load_settings(None, variables).flows
    assert config.schedules == {"animate-photos": "0 * * * *"}
    assert config.secrets == {"AWS_SECRET_ACCESS_KEY": "library-key"}


def test_the_command_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["flows", "yaml", "--out", "prefect.yaml"]) == 0
    assert (tmp_path / "prefect.yaml").read_text() == (ROOT / "prefect.yaml").read_text()
