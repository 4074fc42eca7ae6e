"""Scripts taken out of a file: what is left is a whole snapshot, as if they had never been in it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.engines.rdb import stripping
from agent.engines.rdb.content import RdbContent
from agent.engines.rdb.stripping import without_scripts
from agent.engines.rdb.walk import Walk
from tests.fixtures.rdb_files import aux, database, lzf, rdb, string, text_key


def walk(file: bytes) -> RdbContent:
    return Walk(io.BytesIO(file).read, is_trusted=False).run()


def named(name: bytes) -> bytes:
    return b"\xfa" + name + string(b"return 1")


SCRIPTS = {
    "as servers write it": named(string(b"lua")),
    "in capital letters": named(string(b"LuA")),
    "with more after a zero byte": named(string(b"lua\0more")),
    "compressed": named(lzf(b"\x02lua", 3)),
    "whose text is a number": b"\xfa" + string(b"lua") + b"\xc0\x07",
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("magic", ["REDIS0004", "REDIS0009"])
@pytest.mark.parametrize(
    "place",
    [
        lambda script: (script, aux("ctime", "1"), database(0), text_key("a"), text_key("b")),
        lambda script: (aux("ctime", "1"), script, script, database(0), text_key("a"), script, text_key("b")),
        lambda script: (aux("ctime", "1"), database(0), text_key("a"), text_key("b"), script),
    ],
    ids=["first", "everywhere", "last"],
)
def test_a_file_is_what_it_would_be_without_them(
    place: Callable[[bytes], tuple[bytes, ...]],
    magic: str,
    script: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stripping, "_PIECE_BYTES", 7)
    with_end = None if magic == "REDIS0009" else -8
    parts = place(script)
    file, without = (rdb(*some, magic=magic)[:with_end] for some in (parts, [one for one in parts if one != script]))
    path = tmp_path / "file.rdb"
    path.write_bytes(file)
    found = walk(file)

    left = without_scripts(path, found)

    assert found.scripts == left.scripts == parts.count(script)
    assert path.read_bytes() == without
    expected = walk(without)
    for name in ("body_bytes", "body_crc", "size_bytes", "script_spans", "keys"):
        assert getattr(left, name) == getattr(expected, name)


def test_a_file_with_none_is_left_alone(tmp_path: Path) -> None:
    file = rdb(aux("luau", "return 1"), text_key("a"))

    assert without_scripts(tmp_path / "missing", walk(file)).fields == {"luau": "return 1"}
