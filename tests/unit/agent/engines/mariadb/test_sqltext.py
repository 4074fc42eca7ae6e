"""A dump's text as statements, however it is cut into pieces and whatever is written in it."""

from __future__ import annotations

import gzip
import re

import pytest

from agent.engines.mariadb.dumps import sqltext
from agent.engines.mariadb.dumps.sqltext import CutTextError, Splitter, SqlTextError
from tests.fixtures.kuma_apps import DATA


def split(text: bytes, *, piece_bytes: int = 1 << 20) -> list[bytes]:
    splitter = Splitter()
    found = []
    for start in range(0, len(text), piece_bytes):
        found += list(splitter.add(text[start : start + piece_bytes]))
    return [statement.text for statement in [*found, *splitter.finish()]]


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        (b"", []),
        (b" ;; \n;", []),
        (b"a; b;", [b"a", b"b"]),
        (b"a 'x;y'; b", None),
        (b"a 'it''s; ' ;b \"c;\" ;", [b"a 'it''s; '", b'b "c;"']),
        (rb"a 'one \' ; two' ; b;", [rb"a 'one \' ; two'", b"b"]),
        (rb"a 'ends in \\' ; b;", [rb"a 'ends in \\'", b"b"]),
        (b"a `x;'y` ; b;", [b"a `x;'y`", b"b"]),
        (b"-- a; comment\na 5-1 -2 6/2; # another; one\nb;", [b"a 5-1 -2 6/2", b"b"]),
        (b"a /* no; statement */ b;", [b"a   b"]),
        (b"/*!40101 SET NAMES utf8mb4 */;", [b"/*!40101 SET NAMES utf8mb4 */"]),
        (b"/*!50001 CREATE VIEW `a*/` AS SELECT '/* */;' */;", [b"/*!50001 CREATE VIEW `a*/` AS SELECT '/* */;' */"]),
        (b"/*!50001 a `*/`*/ b '*/ ; ' */; c;", [b"/*!50001 a `*/`*/ b '*/ ; ' */", b"c"]),
        (b"/*M!100616 SET NOTE_VERBOSITY=0 */;", [b"/*M!100616 SET NOTE_VERBOSITY=0 */"]),
        (b"/*M!999999\\- enable the sandbox mode */ \na;", [b"a"]),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1, 3, 1000])
def test_statements_end_where_the_server_sees_their_end(
    text: bytes, statements: list[bytes] | None, piece_bytes: int
) -> None:
    if statements is None:
        with pytest.raises(CutTextError):
            split(text, piece_bytes=piece_bytes)
        return

    assert split(text, piece_bytes=piece_bytes) == statements


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("_RUN", b"INSERT INTO `t` VALUES ('%b');" % (b"x\\'" * 100_000)),
        ("_COMMENT", b"/* %b */;" % (b"x;" * 100_000)),
        ("_LINE_COMMENT", b"-- %b\na;" % (b"x;" * 100_000)),
    ],
)
def test_what_is_long_is_looked_through_a_few_times_not_with_each_piece_of_it(
    pattern: str, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_through = 0

    class Counting:
        def match(self, buffer: bytearray, at: int, end: int = -1) -> re.Match[bytes] | None:
            nonlocal looked_through
            looked_through += len(buffer) - at
            return real.match(buffer, at, len(buffer) if end < 0 else end)

    real: re.Pattern[bytes] = getattr(sqltext, pattern)
    monkeypatch.setattr(sqltext, pattern, Counting())

    split(text, piece_bytes=1000)

    assert looked_through < 10 * len(text)


@pytest.mark.parametrize("piece_bytes", [1, 17, 4096])
def test_a_real_dump_gives_the_same_statements_in_any_pieces(piece_bytes: int) -> None:
    dump = gzip.decompress((DATA / "kuma-2.5.3-mariadb.sql.gz").read_bytes())[:40_000].rpartition(b";\n")[0] + b";\n"

    assert split(dump, piece_bytes=piece_bytes) == split(dump)


@pytest.mark.parametrize(
    "text",
    [
        b"\\! id\n",
        b"a \\g b;",
        b"a \\\n;",
        b"/*!50000 a /* b */ */;",
        b"/*!50700 ' */ ; b ' */;",
        b"a /*!50700 /*/; b `*/ */ ; c; -- `;\n",
        b"a /*!99999/*/; b `*/ */ ; c; -- `;\n",
        b"a /*M!999999 /*/; b `*/ */ ; c; -- `;\n",
        b"a /*! /*/; b `*/ */ ; c; -- `;\n",
        b"a /*!50003 /*/; b `*/ */ ; c; -- `;\n",
        b"/*!100100 `*/` */;",
        b"/*!500001 `*/` */;",
        b"/*M!50001 `*/` */;",
        b"/*! `*/` */;",
        b"/*!50001 `*/ */;",
        b"/*!50000 a; b */;",
        b"/*!50000 a -- b */;",
        b"a 5--3;\n",
    ],
)
def test_what_client_and_server_could_see_differently_is_refused(text: bytes) -> None:
    with pytest.raises(SqlTextError):
        split(text)


@pytest.mark.parametrize("text", [b"INSERT INTO t VALUES (1", b"a 'b", b"a; /* b", b"a; `b", b'a "b'])
def test_a_cut_text_is_told_from_a_whole_one(text: bytes) -> None:
    with pytest.raises(CutTextError, match="line 1"):
        split(text)


def test_the_line_of_a_statement_is_that_of_its_first_word() -> None:
    splitter = Splitter()

    statements = list(splitter.add(b"-- one\n\n/* two\n three */ a\n b;\n\nc;\n"))

    assert [(found.text, found.line) for found in [*statements, *splitter.finish()]] == [(b"a\n b", 4), (b"c", 7)]


@pytest.mark.parametrize(
    ("text", "comment", "is_last"),
    [
        (b"a;\n-- Dump completed on 2026-11-23\n", b"-- Dump completed on 2026-11-23", True),
        (b"a;\n-- Dump completed", b"-- Dump completed", True),
        (b"a;\n-- Dump completed\nb;\n", b"-- Dump completed", False),
    ],
)
def test_it_says_which_comment_came_last(text: bytes, comment: bytes, is_last: bool) -> None:
    splitter = Splitter()

    list(splitter.add(text))
    list(splitter.finish())

    assert (splitter.last_comment, splitter.is_after_comment) == (comment, is_last)


@pytest.mark.parametrize("piece_bytes", [1, 3, 1000])
def test_what_stands_between_delimiter_lines_is_one_statement_with_its_comments(piece_bytes: int) -> None:
    text = b"a;\n\nDELIMITER ;;\nbegin; /* x; */ -- y;\n 'z;;'; end ;;\n SET b ;;\ndelimiter ;\nc;\n-- end\n"
    splitter = Splitter()

    found = []
    for start in range(0, len(text), piece_bytes):
        found += list(splitter.add(text[start : start + piece_bytes]))
    found += splitter.finish()

    assert [(statement.text, statement.line, statement.is_raw) for statement in found] == [
        (b"a", 1, False),
        (b"begin; /* x; */ -- y;\n 'z;;'; end", 4, True),
        (b"SET b", 6, True),
        (b"c", 8, False),
    ]
    assert splitter.is_after_comment


def test_a_definition_without_an_end_is_cut() -> None:
    with pytest.raises(CutTextError):
        split(b"DELIMITER ;;\nCREATE TRIGGER x ;\n")


def test_a_delimiter_is_nothing_but_a_delimiter() -> None:
    with pytest.raises(SqlTextError):
        split(b"DELIMITER a b\nx a")


def test_delimiter_within_a_statement_is_a_word_like_others() -> None:
    assert split(b"a delimiter b;") == [b"a delimiter b"]
