"""The documentation is true: links lead somewhere, code parses, commands exist, the reference is made."""

import dataclasses
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from documents import ROOT, CodeBlock, Document, documents
from typer import Exit, TyperException
from typer.main import get_command

from flows.cli import app
from flows.settings import SECTIONS, Settings
from models.configs import load_config

PAGES = documents()
NAMES = [page.name for page in PAGES]
PLACEHOLDERS = re.compile(r"…|\.\.\.")
# Hosts that a reader may be sent to; anything else would be a machine of ours, or of a mirror.
HOSTS = re.compile(r"(localhost|127\.0\.0\.1|[\w.-]*example\.(com|org)|semver\.org|[\w.-]+\.apache\.org|"
                   r"docs\.prefect\.io|commons\.wikimedia\.org|eulerian\.cs\.washington\.edu)")  # fmt: skip


@pytest.fixture(params=PAGES, ids=NAMES)
def page(request: pytest.FixtureRequest) -> Document:
    found: Document = request.param
    return found


def test_links_and_anchors_lead_somewhere(page: Document) -> None:
    dead = []
    for link in page.links():
        address = urlsplit(link)
        if address.scheme or address.netloc:
            continue
        target = (page.path.parent / unquote(address.path)).resolve() if address.path else page.path
        if not target.is_relative_to(ROOT) or not target.exists():
            dead.append(link)
        elif address.fragment and address.fragment not in Document(target).anchors():
            dead.append(link)
    assert not dead


def test_links_to_the_web_go_to_known_hosts_and_no_path_is_of_one_machine(page: Document) -> None:
    addresses = re.findall(r"https?://[^\s)>\"'`\]]+", page.text)
    strange = [address for address in addresses if not HOSTS.fullmatch(urlsplit(address).hostname or "")]
    assert not strange
    assert not re.findall(r"(?<![\w./:])/(?:work|tmp|home(?!/stillstream)|root|Users|mnt)/\S*", page.text)


def parsed(block: CodeBlock) -> Any:
    if block.language == "json":
        return json.loads(block.text)
    if block.language == "toml":
        return tomllib.loads(block.text)
    return compile(block.text, "a page", "exec")


def test_code_parses(page: Document) -> None:
    for block in page.blocks():
        if block.language in ("json", "toml", "python"):
            assert parsed(block) is not None, block.text


def test_settings_that_are_shown_are_accepted(page: Document, tmp_path: Path) -> None:
    for block in page.blocks():
        if block.language == "toml" and parsed(block).keys() <= SECTIONS.keys():
            settings = Settings(values=parsed(block), origin=page.name)
            for name in settings.values:
                settings.section(name)
        elif block.language in ("toml", "json") and "run" in parsed(block):
            place = tmp_path / f"run.{block.language}"
            place.write_text(block.text)
            load_config("motion", str(place))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python run" in page.text], ids=lambda p: p.name
)
def test_code_that_is_marked_to_run_runs(page: Document, tmp_path: Path) -> None:
    text = "\n".join(block.text for block in page.blocks() if "run" in block.words)
    command = [sys.executable, "-W", "error", "-c", text]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def stillstream_problem(arguments: list[str], *, whole: bool) -> str | None:
    """What the command line has to say against arguments, without running anything."""
    command: Any = get_command(app)
    path = ["stillstream"]
    try:
        while hasattr(command, "commands"):
            context = command.make_context(path[-1], arguments, resilient_parsing=not arguments)
            rest = [*context._protected_args, *context.args]
            if not rest:
                return None if not whole else f"{' '.join(path)} needs a command"
            name, command, arguments = command.resolve_command(context, rest)
            path.append(str(name))
        if whole:
            command.make_context(path[-1], list(arguments))
        else:  # in a sentence: a command with or without some of its options
            known = {each for option in command.params for each in option.opts} | {"--help", "-h"}
            return next(
                (f"no {word}" for word in arguments if word.startswith("-") and word not in known), None
            )
    except Exit:  # --help
        return None
    except TyperException as exc:
        return exc.format_message()
    return None


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M))


def command_problem(line: str) -> str | None:
    program, *arguments = shlex.split(PLACEHOLDERS.sub("x", line), comments=True)
    for end in ("|", ">", "&&", "&", ";"):
        arguments = arguments[: arguments.index(end)] if end in arguments else arguments
    if program == "stillstream":
        return stillstream_problem(arguments, whole=True)
    if program == "make":
        unknown = [name for name in arguments if "=" not in name and name not in make_targets()]
        return f"no target {unknown}" if unknown else None
    if "-m" in arguments:
        module = arguments[arguments.index("-m") + 1]
        if module == "models.train":
            from models.train import _parser

            _parser().parse_args(arguments[arguments.index("-m") + 2 :])
        path = ROOT.joinpath(*module.split("."))
        found = path.is_dir() or path.with_suffix(".py").is_file() or importlib.util.find_spec(module)
        return None if found else f"no module {module}"
    return None if program == "torchrun" or "-c" in arguments else f"nothing known of {program}"


def test_commands_and_their_options_exist(page: Document) -> None:
    problems = {line: problem for line in page.commands() if (problem := command_problem(line))}
    for line in page.spans():
        words = [word for word in shlex.split(line)[1:] if not PLACEHOLDERS.search(word)]
        if problem := stillstream_problem(words, whole=False):
            problems[line] = problem
    assert not problems


def test_wrong_commands_would_be_noticed() -> None:
    wrong = """
        stillstream animat photos
        stillstream animate photos
        stillstream animate photos --out loops --seconds much
        stillstream dataset --worker 2
        stillstream train nothing --data d --out o
        stillstream models lst --registry r
        make everything
        python -m models.nothing
    """
    for line in wrong.strip().splitlines():
        assert command_problem(line), line
    assert stillstream_problem(["models", "list", "--nothing"], whole=False)


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached or path.suffix != ".md" or not path.is_file():
            continue
        reached.add(path)
        links = (urlsplit(link).path for link in Document(path).links() if "://" not in link)
        waiting += [(path.parent / unquote(link)).resolve() for link in links if link]
    assert not [page.name for page in PAGES if page.path not in reached]


@pytest.fixture(scope="module")
def reference() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        from docs import make_reference

        yield make_reference


@pytest.fixture(scope="module")
def pages(reference: Any) -> dict[str, str]:
    made: dict[str, str] = reference.pages()
    return made


def test_the_reference_is_what_the_code_says(pages: dict[str, str]) -> None:
    folder = ROOT / "docs" / "reference"
    assert {path.name for path in folder.iterdir()} == pages.keys()
    for name, text in pages.items():
        assert (folder / name).read_text(encoding="utf-8") == text, f"{name}: run `make reference`"


def test_the_reference_leaves_nothing_unsaid(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        empty = [line for line in text.splitlines() if re.search(r"\|\s*\|\s*$", line)]
        silent = [
            line
            for line in text.splitlines()
            if "STILLSTREAM_" in line and re.search(r"\|\s*\|\s*`STILL", line)
        ]
        assert not empty and not silent, name


def test_a_setting_without_a_meaning_would_be_noticed(reference: Any) -> None:
    @dataclasses.dataclass
    class Config:
        """How. `told`: this is said."""

        told: int = 1
        untold: int = 2

    assert reference.field_docs(Config) == {"told": "this is said", "untold": ""}
    with pytest.raises(KeyError, match="untold"):
        reference._fields(Config, {"told": "this"}, "here")


def test_the_formats_tell_of_every_key_of_a_sample(reference: Any, tmp_path: Path) -> None:
    from pipelines.distil import MeasureConfig, Source, distil_video
    from pipelines.sample_data import write_sample_videos

    write_sample_videos(str(tmp_path), kinds=["river"], seeds=[3], size=(180, 320), frames=50)
    (video,) = tmp_path.glob("*.mp4")
    source = Source(url=str(video), sha256="ab" * 32, about={})
    (sample,) = distil_video(video, source, MeasureConfig()).samples
    assert sample.info.keys() == reference._meanings()["sample"].keys()
