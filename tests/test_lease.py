"""Leases on folders: one holder at a time, here and on object storage; killed holders are cleared away."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from storage import lease as leases
from storage.errors import StoreError, UsageError
from storage.lease import hold_lease
from storage.objects import delete_object, join_url, list_objects, write_bytes


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(leases, "GONE_SECONDS", 2.0)


def claim_of(folder: str, **values: object) -> str:
    url = join_url(folder, ".lease", "other.json")
    write_bytes(url, json.dumps({"since": "2026-01-01T00:00:00+00:00", **values}).encode())
    return url


def test_a_second_holder_is_refused_and_the_next_is_not(tmp_path: Path) -> None:
    with (
        hold_lease(str(tmp_path)),
        pytest.raises(UsageError, match="another run has been working"),
        hold_lease(str(tmp_path)),
    ):
        pass
    with hold_lease(str(tmp_path)):
        assert len(list(tmp_path.rglob("*.json"))) == 1
    assert not list(tmp_path.iterdir())


def test_it_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trouble"), hold_lease(str(tmp_path)):
        raise ValueError("trouble")
    assert not list(tmp_path.iterdir())


def test_a_killed_run_of_this_machine_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "GONE_SECONDS", 1e9)
    hold = "import sys, time; from storage.lease import hold_lease\n"
    hold += "with hold_lease(sys.argv[1]): print('held', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    process.kill()
    process.communicate()
    with hold_lease(str(tmp_path)):
        assert len(list(tmp_path.rglob("*.json"))) == 1


def test_a_silent_run_of_another_machine_is_taken_over_in_time(tmp_path: Path) -> None:
    claim_of(str(tmp_path), machine="elsewhere", process=1)
    begin = time.monotonic()
    with hold_lease(str(tmp_path)):
        assert time.monotonic() - begin >= leases.GONE_SECONDS


def test_a_living_run_of_another_machine_is_left_alone(tmp_path: Path) -> None:
    over = threading.Event()

    def live() -> None:
        renewals = 0
        while not over.wait(0.1):
            renewals += 1
            claim_of(str(tmp_path), machine="elsewhere", process=1, renewals=renewals)

    living = threading.Thread(target=live)
    living.start()
    while not list(tmp_path.rglob("*.json")):
        time.sleep(0.01)
    with pytest.raises(UsageError, match="since 2026-01-01"), hold_lease(str(tmp_path)):
        pass
    over.set()
    living.join()
    assert [path.name for path in tmp_path.rglob("*.json")] == ["other.json"]


def test_a_holder_learns_that_it_was_believed_gone(tmp_path: Path) -> None:
    told = threading.Event()
    with hold_lease(str(tmp_path), on_lost=told.set) as lease:
        lease.check()
        delete_object(lease.url)
        # The renewal under way may write once more; whoever takes over clears it again.
        while not told.wait(0.2):
            delete_object(lease.url)
        with pytest.raises(StoreError, match="taken .* over"):
            lease.check()


def test_of_many_at_once_never_two_hold(tmp_path: Path) -> None:
    inside, most, held, refused = 0, 0, 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most, held, refused
        try:
            with hold_lease(str(tmp_path)):
                with lock:
                    inside, held = inside + 1, held + 1
                    most = max(most, inside)
                time.sleep(0.02)
                with lock:
                    inside -= 1
        except UsageError:
            with lock:
                refused += 1

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == 1 and held + refused == 6 and not list(tmp_path.iterdir())


def test_on_object_storage(s3_url: str) -> None:
    folder = join_url(s3_url, "loops")
    with hold_lease(folder):
        with pytest.raises(UsageError, match="another run"), hold_lease(folder):
            pass
        (claim,) = list_objects(folder)
        assert os.uname().nodename not in claim.key
    with pytest.raises(UsageError):
        list(list_objects(folder))
