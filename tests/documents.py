"""Markdown taken apart as far as the tests of the documentation need it: links, headings, code, commands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "CodeBlock", "Document", "documents"]

ROOT = Path(__file__).resolve().parents[1]
TOP = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
FRAMES = "frames"  # parts of generated pages; they are checked there
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+)\)|(?:src|href)=\"(?P<html>[^\"]+)\"")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.M)
COMMAND = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?((?:stillstream|make|torchrun|python) .*)$")


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block: its language, further words behind it, and its text."""

    language: str
    words: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Document:
    """A Markdown file of the project."""

    path: Path

    @property
    def name(self) -> str:
        """Its path below the project."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        """As it is."""
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """Without any code."""
        text = FENCE.sub("", self.text)
        text = re.sub(r"^(?: {4,}|\t).*$", "", text, flags=re.M)
        return re.sub(r"`[^`\n]*`", "``", text)

    def links(self) -> list[str]:
        """The targets of links and pictures."""
        return [match["target"] or match["html"] for match in LINK.finditer(self.prose)]

    def anchors(self) -> set[str]:
        """What its headings are called in links, as GitHub makes these names."""
        seen: dict[str, int] = {}
        anchors = set()
        for title in HEADING.findall(FENCE.sub("", self.text)):
            plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower())
            name = plain.replace(" ", "-")
            count = seen.get(name, 0)
            seen[name] = count + 1
            anchors.add(f"{name}-{count}" if count else name)
        return anchors

    def blocks(self) -> list[CodeBlock]:
        """Its fenced blocks."""
        found = []
        for match in FENCE.finditer(self.text):
            language, *words = match["info"].split() or [""]
            lines = [line.removeprefix(match["indent"]) for line in match["text"].splitlines()]
            found.append(CodeBlock(language=language, words=tuple(words), text="\n".join(lines) + "\n"))
        return found

    def commands(self) -> Iterator[str]:
        """Command lines of shell blocks and of indented ones, continuation lines joined."""
        shell = [block.text for block in self.blocks() if block.language in ("", "sh", "bash", "console")]
        rest = FENCE.sub("", self.text)
        shell.append("\n".join(line.strip() for line in rest.splitlines() if line.startswith("    ")))
        for line in re.sub(r"\\\n\s*", "", "\n".join(shell)).splitlines():
            if match := COMMAND.match(line.strip()):
                yield match[1]

    def spans(self) -> Iterator[str]:
        """Commands of ours that are named within a sentence."""
        for match in re.finditer(r"`(stillstream [^`\n]+)`", FENCE.sub("", self.text)):
            yield match[1]


def documents() -> list[Document]:
    """Every page that a reader of the project is pointed to."""
    pages = [ROOT / name for name in TOP]
    pages += [path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != FRAMES]
    pages += (ROOT / "models" / "weights").glob("*.md")
    return [Document(path) for path in sorted(pages)]
