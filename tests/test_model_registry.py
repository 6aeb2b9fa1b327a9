"""The model registry on every kind of store: versions, who is current, history, kills, many writers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from storage.digest import digest_bytes
from storage.errors import FormatError, UsageError
from storage.model_registry import EventKind, ModelRegistry, is_registry, pin_weights
from storage.objects import delete_object, exists, join_url, list_objects, read_bytes, write_bytes

PROMOTED, REFUSED, BACK = EventKind.PROMOTED, EventKind.REFUSED, EventKind.ROLLED_BACK


def weights(folder: str, text: str) -> str:
    """Something to be kept; the registry never looks inside."""
    url = join_url(folder, f"{text}.safetensors")
    write_bytes(url, text.encode() * 100)
    return url


def registry_of(url: str, *texts: str) -> tuple[ModelRegistry, list[str]]:
    """A founded registry with a version for each text; returns the names too."""
    registry = ModelRegistry(join_url(url, "registry"))
    places = [{"motion": weights(url, text)} for text in texts]
    names = [registry.add(each, {"motion": "candidate"}, {"made": "here"}).name for each in places]
    registry.found()
    return registry, names


def test_a_version_holds_its_weights_and_where_they_come_from(any_url: str) -> None:
    registry, (name,) = registry_of(any_url, "a")
    version = registry.version(name)
    copied = read_bytes(join_url(registry.version_url(name), "motion.safetensors"))
    assert copied == b"a" * 100 and version.lineage == {"made": "here"}
    assert version.weights["motion"] == {"sha256": digest_bytes(copied), "bytes": 100, "from": "candidate"}
    assert registry.versions() == [version] and registry.current() is None
    assert is_registry(registry.url) and not is_registry(any_url)


def test_the_same_weights_are_one_version(any_url: str) -> None:
    registry, (first, second) = registry_of(any_url, "a", "b")
    before = {(item.key, item.etag) for item in list_objects(registry.url)}
    again = registry.add({"motion": weights(any_url, "a")}, {"motion": "candidate"}, {"made": "elsewhere"})
    assert again.name == first != second and again.lineage == {"made": "here"}
    assert {(item.key, item.etag) for item in list_objects(registry.url)} == before


def test_history_says_who_is_current(any_url: str) -> None:
    registry, (a, b, c) = registry_of(any_url, "a", "b", "c")
    registry.record(PROMOTED, a, why="first")
    registry.record(REFUSED, b, why="worse", details={"figure": 1.5})
    assert registry.current() == a and registry.before_current() is None
    registry.record(PROMOTED, b, why="better")
    registry.record(PROMOTED, c, why="better still")
    assert (registry.current(), registry.before_current()) == (c, b)
    registry.record(BACK, b, why="ugly seams")
    assert (registry.current(), registry.before_current()) == (b, a)
    registry.record(BACK, a, why="those too")
    assert (registry.current(), registry.before_current()) == (a, None)
    told = [(event.kind, event.version, event.before, event.why) for event in registry.history()]
    assert told[0] == (PROMOTED, a, None, "first") and told[-1] == (BACK, a, b, "those too")
    assert list(registry.history())[1].details == {"figure": 1.5}
    assert registry.decided() == {a: BACK, b: BACK, c: PROMOTED}


def test_a_version_may_be_named_by_its_first_digits(tmp_path: Path) -> None:
    registry, (name, _) = registry_of(str(tmp_path), "a", "b")
    assert registry.version(name[:6]).name == name
    for wrong in (name[:2], "0000feed", ""):
        with pytest.raises(UsageError, match="no version"):
            registry.version(wrong)


def test_what_a_kill_leaves_is_taken_up(tmp_path: Path) -> None:
    """Weights without their version.json are no version yet, and adding them again completes it."""
    registry, (name,) = registry_of(str(tmp_path), "a")
    commit = join_url(registry.version_url(name), "version.json")
    delete_object(commit)
    assert registry.versions() == []
    with pytest.raises(UsageError, match="no version"):
        registry.version(name)
    assert registry.add({"motion": weights(str(tmp_path), "a")}, {"motion": "x"}, {}).name == name
    assert exists(commit)


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    registry, names = registry_of(str(tmp_path), "a", "b", "c", "d")
    writers = [
        threading.Thread(target=lambda name=name: [registry.record(REFUSED, name, why="") for _ in range(10)])
        for name in names
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(list(registry.history())) == 40 and registry.current() is None


def test_a_writer_whose_clock_is_late_still_comes_last(tmp_path: Path) -> None:
    registry, (a, b) = registry_of(str(tmp_path), "a", "b")
    ahead = f"99990101T000000.000000Z.{PROMOTED}.{a}.json"
    write_bytes(join_url(registry.url, "history", ahead), b"{}")
    registry.record(PROMOTED, b, why="now")
    assert registry.current() == b and registry.before_current() == a


def test_weights_are_pinned_to_the_version_of_the_moment(any_url: str) -> None:
    registry, (a, b) = registry_of(any_url, "a", "b")
    with pytest.raises(UsageError, match="no current version"):
        pin_weights(registry.url)
    registry.record(PROMOTED, a, why="")
    pinned = pin_weights(registry.url)
    registry.record(PROMOTED, b, why="")
    assert pinned.version == a and pinned.checkpoint == registry.version_url(a)
    assert pin_weights(pinned.checkpoint) == pinned, "a version's own folder pins itself"
    assert pin_weights(registry.url).version == b
    assert pin_weights(None).checkpoint is None
    assert pin_weights(any_url).version is None and pin_weights(any_url).checkpoint == any_url


def test_what_is_no_registry_or_a_damaged_one_is_one_clear_line(tmp_path: Path) -> None:
    url = str(tmp_path / "none")
    with pytest.raises(UsageError, match="no model registry"):
        ModelRegistry(url).require()
    registry, (name,) = registry_of(str(tmp_path), "a")
    write_bytes(join_url(registry.url, "history", "notes.json"), b"{}")
    with pytest.raises(FormatError, match="no decision"):
        registry.current()
    write_bytes(join_url(registry.version_url(name), "version.json"), b"{torn")
    with pytest.raises(FormatError, match="not JSON"):
        registry.version(name)
    write_bytes(join_url(registry.url, "registry.json"), json.dumps({"format_version": 99}).encode())
    with pytest.raises(FormatError, match="format version 99"):
        registry.require()


def test_the_registry_needs_no_torch() -> None:
    code = "import sys, storage.model_registry; print([m for m in ('torch', 'prefect') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


WRITER = """
import sys
from storage.model_registry import EventKind, ModelRegistry
from storage.objects import join_url, write_bytes

url = sys.argv[1]
registry = ModelRegistry(join_url(url, "registry"))
for number in range(10_000):
    place = join_url(url, "incoming", str(number))
    write_bytes(place, str(number).encode() * 50_000)
    version = registry.add({"motion": place}, {"motion": "x"}, {}).name
    registry.record(EventKind.PROMOTED, version, why="newer")
    registry.found()
    print(number, flush=True)
"""


def test_kills_leave_whole_versions_and_whole_decisions(tmp_path: Path) -> None:
    registry = ModelRegistry(str(tmp_path / "registry"))
    for kill in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        with writer.stdout:
            for _ in range(3 + kill):
                writer.stdout.readline()
            time.sleep(0.002 * kill)
            writer.kill()
            writer.wait()
        versions = {version.name: version for version in registry.versions()}
        for version in versions.values():
            copied = read_bytes(join_url(registry.version_url(version.name), "motion.safetensors"))
            assert digest_bytes(copied) == version.weights["motion"]["sha256"]
        assert registry.current() in versions
        assert all(event.why == "newer" and event.version in versions for event in registry.history())
