"""What the docstring of a configuration dataclass says of each of its fields.

Docstrings name fields as `name`: text, or name: text, one clause after the other; a field that has no clause
of its own gets the one in which it is mentioned.
"""

import dataclasses
import inspect
import re
from typing import Any

__all__ = ["field_docs", "introduction"]


def field_docs(config: type[Any]) -> dict[str, str]:
    """Field → what it means; "" for one that the docstring does not tell of."""
    names = [item.name for item in dataclasses.fields(config)]
    clauses = _clauses(config, names)
    docs = {}
    for name in names:
        own = [text for heads, text in clauses if name in heads]
        mentioned = [text for _, text in clauses if f"`{name}`" in text]
        docs[name] = _sentence((own or mentioned or [""])[0])
    return docs


def introduction(config: type[Any]) -> str:
    """What the docstring says before it comes to the fields."""
    names = [item.name for item in dataclasses.fields(config)]
    text = _text(config)
    first = _heads(names).search(text)
    before = text[: first.start()].strip() if first else text
    return re.sub(r":$", ".", before)


def _text(config: type[Any]) -> str:
    return " ".join((inspect.getdoc(config) or "").split())


def _heads(names: list[str]) -> re.Pattern[str]:
    """The beginning of a clause: one or several field names, in backquotes or followed by a colon."""
    name = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    quoted, plain = rf"`(?:{name})`(?:(?:, | and )`(?:{name})`)*:?", rf"(?:{name})(?:, (?:{name}))*:"
    return re.compile(rf"(?:(?<=[.;:] )|^)(?:{quoted}|{plain})(?= )")


def _clauses(config: type[Any], names: list[str]) -> list[tuple[list[str], str]]:
    text = _text(config)
    found = list(_heads(names).finditer(text))
    ends = [*(match.start() for match in found[1:]), len(text)][: len(found)]
    clauses = []
    for match, end in zip(found, ends, strict=True):
        explains = match[0].endswith(":")
        clauses.append((re.findall(r"\w+", match[0]), text[match.end() if explains else match.start() : end]))
    return clauses


def _sentence(text: str) -> str:
    return text.strip().rstrip(".;")
