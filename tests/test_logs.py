"""Structured logs: one object a line from the command and its workers, and no secret in any of them."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from animation_world import write_photos, write_weights

from storage.logs import JsonFormatter, redact

PROGRAM = str(Path(sys.executable).with_name("stillstream"))
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
    "SOME_API_TOKEN": "tok-123456",
    "DB_PASSWORD": "pass-word",
}


def lines_of(arguments: list[str], **variables: str) -> list[dict[str, object]]:
    """What a command says on standard error, each line read as JSON."""
    environment = {**os.environ, **SECRETS, **variables}
    done = subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, env=environment, check=False, timeout=250
    )
    for secret in SECRETS.values():
        assert secret not in done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize("place", ["first", "last", "variable"])
def test_an_error_is_one_object_wherever_the_option_stands(place: str) -> None:
    command = ["gallery", "nowhere-tok-123456"]
    if place == "variable":
        (line,) = lines_of(command, STILLSTREAM_LOG_FORMAT="json")
    else:
        option = ["--log-format", "json"]
        (line,) = lines_of([*option, *command] if place == "first" else [*command, "--log-format=json"])
    assert line["level"] == "error" and "no ledger at nowhere-hidden" in str(line["message"])
    assert str(line["time"]).endswith("Z") and line["logger"] == "flows.console"


@pytest.mark.slow
def test_workers_and_progress_speak_json_too(tmp_path: Path) -> None:
    """A photo that cannot be read is told with its status; what a stage did is told in numbers."""
    write_photos(tmp_path / "photos", 2)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    command = ["animate", str(tmp_path / "photos"), "--out", str(tmp_path / "tok-123456"), "--workers", "2"]
    command += ["--checkpoint", write_weights(tmp_path), "--renderer", "splat", "--seconds", "0.2"]
    lines = lines_of([*command, "--log-format", "json"])
    (stage,) = [line for line in lines if line.get("stage") == "animate: animate"]
    assert stage["done"] == stage["total"] == 3 and stage["counts"] == {"ok": 2, "failed": 1}
    (item,) = [line for line in lines if line.get("item") == "broken.jpg"]
    assert item["status"] == "failed" and item["reason"] == "unreadable"


def test_a_worker_process_of_the_local_runner_logs_json() -> None:
    code = (
        "import logging, storage.logs as logs\n"
        "logs.log_own_as_json()\n"
        "logging.getLogger('pipelines.distil').info('worker %s', 7)\n"
        "logging.getLogger('apache_beam').warning('not ours')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stderr.splitlines()
    assert json.loads(first)["message"] == "worker 7" and second == "not ours"


def test_what_is_secret_is_hidden() -> None:
    plain = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "HOME": "/home/somebody", "MONKEY": "banana-tree"}
    environ = {**SECRETS, **plain, "API_KEY": "123"}
    urls = "s3://me:keypass@bucket/a?b=1 https://u:p@h/x?X-Amz-Signature=abc"
    text = f"AKIAEXAMPLE pass-word tok-123456 123 banana-tree {urls}"
    hidden = redact(text, environ)
    shown = "s3://bucket/a?b=1 https://h/x?X-Amz-Signature=hidden"
    assert hidden == f"AKIAEXAMPLE hidden hidden 123 banana-tree {shown}"


def test_tracebacks_fields_and_foreign_objects_become_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_TOKEN", "tok-123456")
    try:
        raise ValueError("tok-123456 was\nwrong")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "f", 1, "said\n%s", (Path("x"),), sys.exc_info())
    record.fields = {"counts": {"ok": 1}, "list": ["tok-123456"], "path": Path("y")}
    record.flow_run_name = "nightly"
    text = JsonFormatter().format(record)
    line = json.loads(text)
    assert "\n" not in text and "tok-123456" not in text
    assert line["message"] == "said\nx" and line["counts"] == {"ok": 1} and line["list"] == ["hidden"]
    assert "ValueError: hidden was" in line["traceback"] and line["flow_run_name"] == "nightly"
