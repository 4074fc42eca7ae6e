"""Regular expressions keep to what every Python that we run on matches rightly."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
SOURCES = ("agent", "benchmarks", "cli", "common", "controller", "tests", "tools", "toolset")
_ONE_CHARACTER = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_ATOMIC = re.compile(r"[*+?}]\+|\(\?>")


def atomic_parts(source: str) -> Iterator[str]:
    """Lines of a module with a possessive repetition or an atomic group in a raw string, and what it is."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.STRING or not re.match(r"[bB]?[rR]", token.string):
            continue
        if found := _ATOMIC.search(_ONE_CHARACTER.sub("a", token.string)):
            yield f"line {token.start[0]}: {found[0]}"


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ('re.compile(rb"[^a]*+")', ["line 1: *+"]),
        ('re.compile(r"(?:a|b)++c")', ["line 1: ++"]),
        ('re.compile(r"a{2}+", re.DOTALL)', ["line 1: }+"]),
        ('x = 1\nre.compile(rb"a?+%b" % b"x")', ["line 2: ?+"]),
        ('re.compile(Rb"(?>a)")', ["line 1: (?>"]),
        ('re.compile(r"[*+][-+]+\\*+\\++a+b*(?=c)")', []),
        ('print("C++")', []),
    ],
)
def test_what_cannot_be_relied_on_is_found(source: str, parts: list[str]) -> None:
    assert list(atomic_parts(source)) == parts


def test_no_pattern_is_possessive_or_atomic() -> None:
    """CPython 3.11.0 to 3.11.4 match a possessive repetition of what can backtrack wrongly (gh-106052)."""
    modules = [path for folder in SOURCES for path in sorted((PROJECT / folder).rglob("*.py"))]

    found = [
        f"{path.relative_to(PROJECT)}, {part}"
        for path in modules
        if "__pycache__" not in path.parts
        for part in atomic_parts(path.read_text())
    ]

    assert modules
    assert found == []
