"""Settings: file below environment below command line, typed, and every mistake named with its place."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest

from flows.settings import SECTIONS, Settings, config_from_values, load_settings
from storage.errors import UsageError


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    """One field of each kind that our configs use."""

    count: int = 1
    share: float = 0.5
    active: bool = False
    name: str | None = None
    mode: Literal["fast", "slow"] = "fast"
    colour: Colour = Colour.RED
    sizes: tuple[int, ...] = ()
    pair: tuple[int, int] = (1, 2)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise UsageError(f"count must be 0 or more, got {self.count}")


def build(**values: object) -> Outer:
    return config_from_values(Outer, values, where="here")


def write(folder: Path, text: str, name: str = "stillstream.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_text_becomes_each_field_s_type() -> None:
    built = build(
        count="3",
        share="0.25",
        active="yes",
        name="x",
        mode="slow",
        colour="blue",
        sizes="1, 2,3",
        inner={"depth": "4"},
    )
    assert built == Outer(
        count=3,
        share=0.25,
        active=True,
        name="x",
        mode="slow",
        colour=Colour.BLUE,
        sizes=(1, 2, 3),
        inner=Inner(depth=4),
    )


def test_plain_values_of_toml_fit_too() -> None:
    assert build(count=2, share=1, sizes=[5], pair=[3, 4], name="none") == Outer(
        count=2, share=1.0, sizes=(5,), pair=(3, 4), name=None
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cuont": 1}, "unknown key 'cuont'; did you mean count"),
        ({"zzz": 1}, "there are active, colour"),
        ({"count": "many"}, r"here\.count must be a whole number, got 'many'"),
        ({"count": 1.5}, "whole number"),
        ({"count": True}, "whole number, got True"),
        ({"share": "much"}, "must be a number"),
        ({"active": "perhaps"}, "true or false"),
        ({"mode": "medium"}, "one of fast, slow"),
        ({"colour": "green"}, "one of red, blue"),
        ({"sizes": 3}, "must be a list"),
        ({"pair": [1]}, "must have 2 values, got 1"),
        ({"inner": {"dpeth": 1}}, r"here\.inner: unknown key 'dpeth'; did you mean depth"),
        ({"count": -1}, "here: count must be 0 or more"),
    ],
)
def test_a_mistake_is_named_with_its_place(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build(**values)


def test_environment_lies_over_the_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    file = write(tmp_path, "[animate]\nseconds = 4\nfps = 24\nspeed = 0.5\n")
    settings = load_settings(
        file, {"STILLSTREAM_ANIMATE__FPS": "12", "STILLSTREAM_VERBOSE": "1", "HOME": "/"}
    )
    settings = settings.override("animate", speed=2.0, renderer=None)
    assert (settings.animate.seconds, settings.animate.fps, settings.animate.speed) == (4.0, 12.0, 2.0)
    assert settings.animate.renderer == "auto"


def test_nested_tables_come_from_the_environment_too() -> None:
    settings = load_settings(None, {"STILLSTREAM_DATASET__SELECTION__LEAST_MOVING": "0.03"})
    assert settings.dataset.selection.least_moving == 0.03


def test_the_file_is_found_by_name_variable_or_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = write(tmp_path, "[gallery]\ntitle = 'Named'\n", "named.toml")
    assert load_settings(named, {}).gallery.title == "Named"
    assert load_settings(None, {"STILLSTREAM_CONFIG": named}).gallery.title == "Named"
    monkeypatch.chdir(tmp_path)
    assert load_settings(None, {}).values == {}
    write(tmp_path, "[gallery]\ntitle = 'Here'\n")
    assert load_settings(None, {}).gallery.title == "Here"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[galery]\n", "unknown section 'galery'; did you mean gallery"),
        ("gallery = 3\n", r"gallery must be a table \[gallery\]"),
        ("[gallery\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_settings(write(tmp_path, text), {})


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no settings file"):
        load_settings(str(tmp_path / "none.toml"), {})


def test_every_section_builds_from_nothing() -> None:
    configs = Settings().check()
    assert configs.keys() == SECTIONS.keys()
    for name, config in configs.items():
        assert type(config).__name__ == SECTIONS[name].partition(":")[2]


def test_what_is_in_force_can_be_written_down_and_read_back(tmp_path: Path) -> None:
    settings = Settings(values={"animate": {"seconds": 3.5, "format": ["gif"]}, "dataset": {"time_limit": 9}})
    file = write(tmp_path, settings.as_toml())
    again = load_settings(file, {})
    assert again.check() == settings.check()
    assert again.animate.seconds == 3.5 and again.dataset.time_limit == 9


@pytest.mark.parametrize("variable", ["STILLSTREAM_ANIMATE_SECONDS", "STILLSTREAM_FLOWS_LIMIT"])
def test_a_variable_with_a_lost_underscore_is_not_passed_over(variable: str) -> None:
    section, _, key = variable.removeprefix("STILLSTREAM_").partition("_")
    with pytest.raises(UsageError, match=f"did you mean STILLSTREAM_{section}__{key}"):
        load_settings(None, {variable: "4"})
    load_settings(None, {"STILLSTREAM_LOG_FORMAT": "json", "STILLSTREAM_VERBOSE": "1"})


def test_secrets_are_never_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither by `config check` nor in the line of an error, wherever somebody wrote one."""
    from flows.cli import run

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("STILLSTREAM_NIGHTLY__PHOTOS", "s3://me:keypass@lake/photos")
    file = write(tmp_path, "[gallery]\ntitle = 'wJalrXUtnFEMI'\n")
    assert run(["config", "check", "--config", file]) == 0
    file = write(tmp_path, "[gallery]\nmax_items = 'wJalrXUtnFEMI'\n", "wrong.toml")
    assert run(["config", "check", "--config", file]) == 2
    seen = capsys.readouterr()
    assert 'photos = "s3://lake/photos"' in seen.out and "max_items must be a whole number" in seen.err
    assert "wJalrXUtnFEMI" not in seen.out + seen.err and "keypass" not in seen.out + seen.err


def test_importing_settings_is_light() -> None:
    import subprocess
    import sys

    code = (
        "import sys, flows.settings\n"
        "print([m for m in ('torch', 'apache_beam', 'prefect', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
