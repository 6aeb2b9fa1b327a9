"""Objects behave alike on local disks, in memory and on a real S3 server."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flaky_proxy import FlakyProxy
from hypothesis import given, settings
from hypothesis import strategies as st
from seaweed import SeaweedServer

from storage import objects, retries
from storage.digest import digest_bytes
from storage.errors import StoreError, UsageError
from storage.listing import list_objects
from storage.locations import TEMPORARY_PREFIX, TEMPORARY_SUFFIX, filesystem, is_temporary, parse_url
from storage.video import encode_video

ODD_NAMES = [
    "a b.txt", "дом/水.txt", "q'\"<x>&.txt", "#1.txt", "50%41.txt", "[x].txt", "w?.txt", "*star.txt",
    "{a,b}.txt", "deep/er/é.MP4", ".hidden", "a::b.txt", "x=1&y=2+3.txt", "~tilde", "semi;colon$.txt",
    "name" * 50,
]  # fmt: skip


def test_odd_names_come_back_literally(any_url: str) -> None:
    for name in ODD_NAMES:  # no backslash: SeaweedFS stores it as a slash
        data = name.encode()
        written = objects.write_bytes(objects.join_url(any_url, name), data)
        assert written.size == len(data)
    found = {info.key: info for info in list_objects(any_url)}
    assert sorted(found) == sorted(ODD_NAMES)
    for name, info in found.items():
        assert objects.read_bytes(info.url) == name.encode()
        assert objects.stat_object(info.url).etag == info.etag
        assert [one.url for one in list_objects(info.url)] == [info.url]
        with objects.local_copy(info.url) as path:
            assert path.read_bytes() == name.encode()
        assert not objects.exists(info.url + "x")


def test_listing_takes_file_folder_glob_and_suffixes(any_url: str) -> None:
    for name in ("a.mp4", "b.MP4", "c.txt", "sub/d.mp4", "sub/e/f.mp4"):
        objects.write_bytes(objects.join_url(any_url, name), b"x")

    def keys(part: str, suffixes: set[str] | None = None) -> list[str]:
        return [info.key for info in list_objects(objects.join_url(any_url, part), suffixes=suffixes)]

    assert sorted(keys("", {".mp4"})) == ["a.mp4", "b.MP4", "sub/d.mp4", "sub/e/f.mp4"]
    assert keys("sub") == ["d.mp4", "e/f.mp4"]
    assert keys("a.mp4") == ["a.mp4"]
    assert keys("?.mp4") == ["a.mp4"]
    assert keys("[ac].*") == ["a.mp4", "c.txt"]
    assert sorted(keys("**/*.mp4")) == ["a.mp4", "sub/d.mp4", "sub/e/f.mp4"]
    assert keys("sub/**") == ["d.mp4", "e/f.mp4"]
    assert keys("*/d.mp4") == ["sub/d.mp4"]


def test_nothing_there_is_one_clear_usage_error(any_url: str) -> None:
    objects.write_bytes(objects.join_url(any_url, "a.txt"), b"x")
    for part in ("nothing", "nothing/*.mp4", "a.txt/b"):
        with pytest.raises(UsageError, match="check the path"):
            list_objects(objects.join_url(any_url, part))
    with pytest.raises(UsageError, match=r"ends in \.mp4"):
        list_objects(any_url, suffixes={".mp4"})
    for access in (objects.read_bytes, objects.stat_object, objects.digest_object, objects.open_object):
        with pytest.raises(UsageError, match="nothing"):
            access(objects.join_url(any_url, "nothing"))
    objects.delete_object(objects.join_url(any_url, "nothing"))


def test_a_prefix_of_names_lists_on_object_stores_only(any_url: str) -> None:
    for name in ("2024-01.jpg", "2024-02.jpg", "2025-01.jpg"):
        objects.write_bytes(objects.join_url(any_url, name), b"x")
    prefix = objects.join_url(any_url, "2024")
    if any_url.startswith(("s3", "memory")):
        assert [info.key for info in list_objects(prefix)] == ["2024-01.jpg", "2024-02.jpg"]
    else:
        with pytest.raises(UsageError):
            list_objects(prefix)


def test_a_failed_write_leaves_nothing_and_keeps_the_old(any_url: str) -> None:
    url = objects.join_url(any_url, "folder/x.bin")
    objects.write_bytes(url, b"old")
    with pytest.raises(KeyError), objects.atomic_writer(url) as stream:
        stream.write(b"half of the new")
        raise KeyError("the encoder failed")
    assert objects.read_bytes(url) == b"old"
    assert [info.key for info in list_objects(any_url)] == ["folder/x.bin"]
    assert objects.remove_temporaries(any_url) == 0


def test_large_objects_stream_in_and_out(any_url: str, tmp_path: Path) -> None:
    block = os.urandom(1 << 20)
    url = objects.join_url(any_url, "large.bin")
    with objects.atomic_writer(url) as stream:
        for _ in range(20):
            stream.write(block)
    assert objects.stat_object(url).size == 20 << 20
    assert objects.digest_object(url) == digest_bytes(block * 20)
    with objects.open_object(url) as stream:
        stream.seek((5 << 20) - 3)
        assert stream.read(7) == (block[-3:] + block[:4])
    again = objects.publish_file(_file(tmp_path / "mine", block), objects.join_url(any_url, "again.bin"))
    assert again.size == len(block)


def test_a_multipart_upload_is_whole(s3_url: str, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 40
    objects.publish_file(_file(tmp_path / "big", data), f"{s3_url}/big.bin")
    assert objects.digest_object(f"{s3_url}/big.bin") == digest_bytes(data)


def test_text_opens_as_utf8_and_writing_is_refused(any_url: str) -> None:
    url = objects.join_url(any_url, "t.txt")
    objects.write_bytes(url, "Wasserfälle\n水\n".encode())
    with objects.open_object(url, "r") as stream:
        assert stream.read().splitlines() == ["Wasserfälle", "水"]
    with pytest.raises(UsageError, match="atomic_writer"):
        objects.open_object(url, "wb")


@pytest.mark.parametrize("url", ["", "nope://x/y", "s3://", "a\0b"])
def test_impossible_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        objects.read_bytes(url)


def test_join_url_does_not_leave_the_folder() -> None:
    assert objects.join_url("s3://bucket/a/", "b", "c/d") == "s3://bucket/a/b/c/d"
    assert objects.join_url("/", "a") == "/a"
    with pytest.raises(UsageError, match="lead out"):
        objects.join_url("out", "../../etc/passwd")


@settings(max_examples=200, deadline=None)
@given(
    name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
)
def test_any_name_survives_the_memory_store(name: str) -> None:
    if name.strip() in ("", ".", "..") or is_temporary(name):
        return
    url = objects.join_url("memory://any-name", name)
    objects.write_bytes(url, b"here")
    assert [info.key for info in list_objects(url)] == [name]
    objects.delete_object(url)


def test_temporaries_are_invisible_and_can_be_removed(any_url: str) -> None:
    objects.write_bytes(objects.join_url(any_url, "good.txt"), b"x")
    left = f"sub/{TEMPORARY_PREFIX}0123456789abcdef{TEMPORARY_SUFFIX}"
    objects.write_bytes(objects.join_url(any_url, left), b"half")
    assert [info.key for info in list_objects(any_url)] == ["good.txt"]
    if not any_url.startswith("s3"):  # where we never make any
        assert objects.remove_temporaries(any_url) == 1
    assert objects.remove_temporaries(any_url) == 0
    assert objects.remove_temporaries(objects.join_url(any_url, "no such folder")) == 0


def test_uploads_of_killed_jobs_are_aborted(s3_server: SeaweedServer, s3_url: str) -> None:
    def begin(url: str) -> None:
        location = parse_url(url)
        bucket, key = location.bucket_and_key
        filesystem(location).call_s3("create_multipart_upload", Bucket=bucket, Key=key)

    begin(f"{s3_url}/out/x.tar")
    begin(f"{s3_url}/out/sub/y.tar")
    begin(f"{s3_url}/outer/z.tar")
    assert objects.remove_temporaries(f"{s3_url}/out") == 2
    assert objects.remove_temporaries(f"{s3_url}/out") == 0
    assert objects.remove_temporaries(s3_url) == 1
    assert objects.remove_temporaries("s3://no-such-bucket-here/x") == 0


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("x")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "gone")
    assert [info.key for info in list_objects(str(tmp_path))] == ["a/x.txt", "dangling.txt"]


def test_a_glob_does_not_walk_below_what_it_can_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "sub/b.jpg", "sub/deep/c.jpg"):
        objects.write_bytes(str(tmp_path / name), b"x")
    walked: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (walked.append(str(folder)), scandir(folder))[1])
    assert [info.key for info in list_objects(str(tmp_path / "*.jpg"))] == ["a.jpg"]
    assert [info.key for info in list_objects(str(tmp_path / "*/*.jpg"))] == ["sub/b.jpg"]
    assert str(tmp_path / "sub" / "deep") not in walked


def test_a_killed_writer_leaves_only_a_temporary(tmp_path: Path) -> None:
    code = (
        "import sys, time; from storage.objects import atomic_writer\n"
        "with atomic_writer(sys.argv[1]) as s:\n"
        "    s.write(b'x' * 100000); s.flush(); print('writing', flush=True); time.sleep(60)"
    )
    target = tmp_path / "x.bin"
    with subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    assert objects.remove_temporaries(str(tmp_path)) == 1


def _write_against_a_limit(folder: Path, results: multiprocessing.Queue[str]) -> None:
    """A file size limit stands in for the full disk: the error arrives by the same way."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    noise = np.random.default_rng(0).integers(0, 255, (5, 96, 128, 3)).astype(np.uint8)
    writers: list[Callable[[], object]] = [
        lambda: objects.write_bytes(str(folder / "x"), b"x" * 50_000),
        lambda: encode_video(noise, str(folder / "x.mp4"), fps=30, crf=1),
        lambda: objects.publish_file(__file__, str(folder / "x.py")),
        lambda: _write_by_stream(str(folder / "y")),
    ]
    for writer in writers:
        try:
            writer()
            results.put("written")
        except StoreError as exc:
            results.put(str(exc))


def _write_by_stream(url: str) -> None:
    with objects.atomic_writer(url) as stream:
        for _ in range(1000):
            stream.write(b"x" * 1000)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_write_against_a_limit, args=(tmp_path, results))
    process.start()
    said = [results.get(timeout=30) for _ in range(4)]
    process.join()
    assert [("disk is full" in words) for words in said] == [True, True, False, True], said
    assert [path.name for path in tmp_path.iterdir()] == ["x.py"]


def test_errors_that_pass_are_retried_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    calls: list[int] = []

    def recovers() -> str:
        calls.append(1)
        if len(calls) < 4:
            raise ConnectionResetError("gone")
        return "back"

    assert retries.attempt(recovers, doing="read", url="u") == "back"
    calls.clear()

    def forbidden() -> None:
        calls.append(1)
        raise PermissionError("no")

    with pytest.raises(StoreError, match="permission denied"):
        retries.attempt(forbidden, doing="read", url="u")
    assert len(calls) == 1
    monkeypatch.setattr(retries, "RETRY_SECONDS", 0.05)
    with pytest.raises(StoreError, match="gave up"):
        retries.attempt(lambda: (_ for _ in ()).throw(TimeoutError()), doing="read", url="u")


def test_a_bug_is_not_taken_for_the_stores_fault() -> None:
    with pytest.raises(ZeroDivisionError):
        retries.attempt(lambda: 1 // 0, doing="read", url="u")


def test_wrong_keys_and_missing_buckets_are_told_apart(s3_server: SeaweedServer) -> None:
    with pytest.raises(UsageError, match="nothing at this path"):
        list_objects("s3://no-such-bucket-here/x")
    code = (
        "from storage.objects import read_bytes; from storage.errors import StoreError\n"
        f"try: read_bytes('{s3_server.url}/x')\n"
        "except StoreError as exc: print(exc)"
    )
    wrong = {**os.environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
    output = subprocess.run(
        [sys.executable, "-c", code], env=wrong, capture_output=True, text=True, check=True
    )
    assert "AWS_ACCESS_KEY_ID" in output.stdout


def test_a_store_that_restarts_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write and read while the server is killed, away for some seconds, and back."""
    server = SeaweedServer(tmp_path / "server")
    server.start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    # The file system of this process may belong to the session's server.
    monkeypatch.setattr("storage.locations._filesystems", {})
    away = threading.Thread(target=_stop_for, args=(server, 3.0))
    try:
        objects.write_bytes(f"{server.url}/before", b"before")
        away.start()
        time.sleep(0.3)
        for index in range(10):
            objects.write_bytes(f"{server.url}/{index}", bytes([index]) * 1000)
        assert objects.read_bytes(f"{server.url}/before") == b"before"
        assert len(list(list_objects(server.url))) == 11
        for index in range(10):
            assert objects.read_bytes(f"{server.url}/{index}") == bytes([index]) * 1000
    finally:
        away.join()
        server.stop()


FORKING = """
import multiprocessing, sys
from storage import objects

def write_and_read(url, results):
    objects.write_bytes(url, url[-1:].encode())
    results.put(objects.read_bytes(url))

url = sys.argv[1]
objects.write_bytes(f"{url}/x", b"parent")  # makes the parent's client and its thread
context = multiprocessing.get_context("fork")
results = context.Queue()
children = [context.Process(target=write_and_read, args=(f"{url}/{n}", results)) for n in range(2)]
for child in children:
    child.start()
assert sorted(results.get(timeout=30) for _ in children) == [b"0", b"1"]
for child in children:
    child.join(10)
assert [child.exitcode for child in children] == [0, 0]
"""


def test_forked_children_reach_the_store(s3_url: str) -> None:
    # In a process of its own: this one has the threads of every test before it; forking those is undefined.
    done = subprocess.run([sys.executable, "-c", FORKING, s3_url], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr


def _stop_for(server: SeaweedServer, seconds: float) -> None:
    server.stop()
    time.sleep(seconds)
    server.restart()


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("fault", [500, 503, 429, "drop", "cut"])
def test_a_store_that_fails_now_and_then_loses_nothing(
    s3_server: SeaweedServer, s3_url: str, monkeypatch: pytest.MonkeyPatch, fault: int | str
) -> None:
    """Two of three requests go wrong: answered with an error, dropped, or cut off in the body."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_SECONDS", 0.01)
    with FlakyProxy(s3_server.endpoint, lambda number: fault if number % 3 else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setattr("storage.locations._filesystems", {})
        data = os.urandom(300_000)
        for index in range(3):
            objects.write_bytes(f"{s3_url}/{index}.bin", data)
        assert [info.key for info in list_objects(s3_url)] == ["0.bin", "1.bin", "2.bin"]
        assert objects.digest_object(f"{s3_url}/1.bin") == digest_bytes(data)
        with objects.local_copy(f"{s3_url}/2.bin") as path:
            assert path.read_bytes() == data
        objects.delete_object(f"{s3_url}/0.bin")
        assert not objects.exists(f"{s3_url}/0.bin")
        assert proxy.requests > 12
    monkeypatch.setattr("storage.locations._filesystems", {})
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    assert [info.size for info in list_objects(s3_url)] == [300_000, 300_000]


def test_a_store_that_stays_broken_is_given_up_on(
    s3_server: SeaweedServer, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "RETRY_SECONDS", 0.5)
    with FlakyProxy(s3_server.endpoint, lambda number: 500) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        monkeypatch.setattr("storage.locations._filesystems", {})
        with pytest.raises(StoreError, match="gave up"):
            objects.write_bytes(f"{s3_url}/x", b"x")
        with pytest.raises(StoreError, match="gave up"):
            list_objects(s3_url)
