"""What photos of a library are called, so that no two of them share a loop."""

import unicodedata

import pytest

from pipelines.photo_listing import name_photos
from storage.objects import ObjectInfo


def listed(*names: str) -> list[tuple[str, str]]:
    infos = (ObjectInfo(url=f"s3://b/{name}", key=name, size=1, etag="e") for name in names)
    return [(record.key, record.name) for record in name_photos(infos)]


def test_names_do_not_depend_on_what_lies_between() -> None:
    found = dict(listed("a-1.jpg", "a.avif", "a.d/x.jpg", "a.jpg", "a.jpg.hints.json", "ab.jpg", "b/a.jpg"))
    assert found["a-1.jpg"] == "a-1" and found["a.d/x.jpg"] == "a.d/x" and found["ab.jpg"] == "ab"
    assert found["b/a.jpg"] == "b/a"
    assert found["a.avif"].startswith("a-") and found["a.jpg"].startswith("a-")
    assert found["a.avif"] != found["a.jpg"] and len(found) == 6


def test_names_that_differ_in_case_alone_are_set_apart() -> None:
    found = dict(
        listed("A.JPG", "B/x.jpg", "IMG.jpg", "a.jpg", "a.png", "b/x.jpg", "e\u0301.jpg", "\u00e9.jpg")
    )
    names = [unicodedata.normalize("NFC", name).casefold() for name in found.values()]
    assert len(set(names)) == len(found) == 8
    assert found["A.JPG"] == "A" and found["IMG.jpg"] == "IMG" and found["B/x.jpg"] == "B/x"
    assert found["b/x.jpg"].startswith("b/x-")


@pytest.mark.parametrize(
    "key", ["../x.jpg", "a/../../x.jpg", "/x.jpg", "a//x.jpg", "./x.jpg", "a\\..\\x.jpg", "x\n.jpg"]
)
def test_unsafe_keys_get_no_name(key: str) -> None:
    assert listed(key)[0][1] == ""


def test_names_that_would_run_into_other_results_are_set_apart() -> None:
    found = dict(listed("b.jpg", "b.poster.jpg", "c.hevc.jpg", ".jpg", "n" * 240 + ".jpg"))
    assert found["b.jpg"] == "b" and found["b.poster.jpg"].startswith("b.poster-")
    assert found["c.hevc.jpg"].startswith("c.hevc-") and found[".jpg"].startswith("-")
    assert len(found["n" * 240 + ".jpg"]) < 220
