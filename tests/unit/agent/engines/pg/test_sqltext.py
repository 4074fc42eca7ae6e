"""The splitter cuts SQL text where the server does, whatever the chunks, and refuses what is not SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.engines.pg.loading.sqltext import EndOfRows, Event, Rows, Splitter, Statement
from agent.engines.pg.server.text_errors import TextError

OPENING = b"--\n-- PostgreSQL database dump\n--\n\n"
CLOSING = b"\n--\n-- PostgreSQL database dump complete\n--\n\n"

RICH = rb"""--
-- PostgreSQL database dump
--

\restrict Kx7
-- Dumped from database version 15.20 (Debian 15.20-1)
-- Dumped by pg_dump version 17.10

SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);

--
-- Name: f(integer); Type: FUNCTION; Schema: public; Owner: me
--

CREATE FUNCTION public.f(a integer) RETURNS text
    LANGUAGE plpgsql
    AS $_$ begin return 'x;' || $1; end; $_$;
CREATE OR REPLACE FUNCTION g() RETURNS int BEGIN ATOMIC
 SELECT CASE WHEN true THEN 1 ELSE 2 END;
 SELECT (1 + 2); -- end;
END;
CREATE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC SELECT 1; END;
CREATE FUNCTION public.begin(begin int) RETURNS int LANGUAGE sql
BEGIN
  aToMiC SELECT begin.begin; SELECT 2; END;
CREATE PROCEDURE begin() LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION public.begin () RETURNS public.begin LANGUAGE sql AS 'SELECT 1';
CREATE TABLE "odd;name" (a text DEFAULT 'it''s; "ok"', b text DEFAULT E'a\';b\\', "c""d" int);
/* a /* nested; */ comment; */ SELECT 1 /* in; side */ + 2 -- trailing; comment
 - 3;
CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); DELETE FROM b);
SELECT $$;$$, $a$;$b$;$a$, a$b$c, 1-1, 4/2, U&'\0041;';
INSERT INTO t VALUES (1, 'a;b', NULL, '-- no comment', (2));
INSERT INTO t VALUES (1, 'line
break; ''quoted''', -5);
SELECT E'x' 'y', E'x'
  '\';z', e'\\', B'01', type'E';
--
-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: me
--

COPY public.t (a, b) FROM stdin;
1	-- Name: x; Type: INDEX; Schema: y; Owner: z
2	\\.
3	a;b\n
\.x
\.


COPY public.empty FROM stdin;
\.
;;
SELECT pg_catalog.setval('s', 1);
\unrestrict Kx7
--
-- PostgreSQL database dump complete
--

"""


def split(
    text: bytes, cuts: Sequence[int] = (), *, joins_inserts: bool = False, limit_bytes: int = 1 << 20
) -> tuple[list[Event], Splitter]:
    """All events, Rows of one block put together."""
    splitter = Splitter(joins_inserts=joins_inserts, statement_limit_bytes=limit_bytes)
    edges = [0, *sorted(cuts), len(text)]
    events: list[Event] = []
    rows = b""
    ends_row = True
    for start, end in pairwise(edges):
        for event in splitter.feed(text[start:end]):
            if isinstance(event, Rows):
                rows += event.data
                ends_row = event.ends_row
                continue
            if isinstance(event, EndOfRows):
                assert ends_row
                events.append(Rows(rows, True))
                rows = b""
            events.append(event)
    events += splitter.finish()
    return events, splitter


def statements(text: bytes) -> list[bytes]:
    return [event.text for event in split(OPENING + text + CLOSING)[0] if isinstance(event, Statement)]


def test_statements_end_where_they_end_for_the_server() -> None:
    found = [event for event in split(RICH)[0] if isinstance(event, Statement)]

    assert [one.text.split(b"\n")[0][:40] for one in found] == [
        b"SET client_encoding = 'UTF8'",
        b"SELECT pg_catalog.set_config('search_pat",
        b"CREATE FUNCTION public.f(a integer) RETU",
        b"CREATE OR REPLACE FUNCTION g() RETURNS i",
        b"CREATE PROCEDURE p() LANGUAGE sql BEGIN ",
        b"CREATE FUNCTION public.begin(begin int) ",
        b"CREATE PROCEDURE begin() LANGUAGE sql AS",
        b"CREATE FUNCTION public.begin () RETURNS ",
        b'CREATE TABLE "odd;name" (a text DEFAULT ',
        b"SELECT 1 /* in; side */ + 2 -- trailing;",
        b"CREATE RULE r AS ON INSERT TO t DO ALSO ",
        b"SELECT $$;$$, $a$;$b$;$a$, a$b$c, 1-1, 4",
        b"INSERT INTO t VALUES (1, 'a;b', NULL, '-",
        b"INSERT INTO t VALUES (1, 'line",
        b"SELECT E'x' 'y', E'x'",
        b"COPY public.t (a, b) FROM stdin",
        b"COPY public.empty FROM stdin",
        b"SELECT pg_catalog.setval('s', 1)",
    ]


def test_each_statement_has_its_line_and_pg_dumps_entry() -> None:
    found = {event.text[:15]: event for event in split(RICH)[0] if isinstance(event, Statement)}

    for start, event in found.items():
        assert RICH.split(b"\n")[event.line - 1].find(start.split(b"\n")[0]) >= 0
    assert found[b"SET client_enco"].entry is None
    function = found[b"CREATE FUNCTION"].entry
    assert function is not None
    assert (function.name, function.kind) == (b"f(integer)", "FUNCTION")
    copied = found[b"COPY public.t ("].entry
    assert copied is not None
    assert (copied.name, copied.kind) == (b"t", "TABLE DATA")


def test_rows_go_on_to_the_line_with_the_end_mark_alone() -> None:
    events = split(RICH)[0]

    blocks = [event.data for event in events if isinstance(event, Rows)]

    assert blocks == [RICH[RICH.index(b"1\t-- Name") : RICH.index(b"\\.\n\n\nCOPY")], b""]


def test_what_the_comments_say_is_kept() -> None:
    facts = split(RICH)[1].facts

    assert (facts.source_version, facts.dumper_version) == ("15.20 (Debian 15.20-1)", "17.10")
    assert facts.has_opening
    assert facts.has_closing


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, len(RICH)), max_size=12), st.booleans())
def test_where_chunks_are_cut_changes_nothing(cuts: list[int], has_crlf: bool) -> None:
    text = RICH.replace(b"\n", b"\r\n") if has_crlf else RICH

    assert split(text, cuts)[0] == split(text)[0]


@pytest.mark.parametrize("text", [RICH, RICH.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + RICH])
def test_text_may_come_byte_by_byte(text: bytes) -> None:
    assert split(text, range(len(text)))[0] == split(text)[0]


TOKENS = [
    *(b"' '' \" \"\" $$ $a$ $ -- /* */ - / ( ) ; \n \r\n E' e' B' \t 1 a \\' \xc3\xa9 .".split(b" ")),
    *(b"CREATE FUNCTION OR REPLACE PROCEDURE BEGIN END CASE INSERT INTO VALUES SELECT SET COPY".split(b" ")),
    b"standard_conforming_strings = off;",
    b"COPY t FROM stdin;\n",
    b"\\.\n",
    b" ",
]


INSERTS = b"".join(b"INSERT INTO t VALUES (%d, E'%d\\';', 'a;');\n" % (n, n) for n in range(1300))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, len(INSERTS)), max_size=12))
def test_inserts_may_come_joined_in_order_and_none_is_lost(cuts: list[int]) -> None:
    text = OPENING + b"SELECT 1;" + INSERTS + b"SELECT 2;" + CLOSING

    found = [event for event in split(text, cuts, joins_inserts=True)[0] if isinstance(event, Statement)]

    assert b"".join(event.text + b";\n" for event in found[1:-1]) == INSERTS
    assert len(found) < 30
    for event in found[1:-1]:
        assert event.text.split(b"\n")[0] in text.split(b"\n")[event.line - 1]


def outcome(text: bytes, cuts: Iterable[int]) -> tuple[list[Event], str]:
    try:
        return split(text, list(cuts))[0], ""
    except TextError as error:
        return [], error.text


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(TOKENS), max_size=25), st.data())
def test_any_text_gives_the_same_whatever_the_chunks(tokens: list[bytes], data: st.DataObject) -> None:
    text = b"".join(tokens)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))

    assert outcome(text, cuts) == outcome(text, ())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200))
def test_any_bytes_give_events_or_a_text_error(text: bytes) -> None:
    outcome(text, ())


def test_backslashes_escape_in_every_string_where_the_dump_says_so() -> None:
    text = (
        rb"SET standard_conforming_strings = off; SELECT 'a\';b'; SET standard_conforming_strings = on; SELECT 'a\'; X;"
    )

    assert statements(text) == [
        b"SET standard_conforming_strings = off",
        rb"SELECT 'a\';b'",
        b"SET standard_conforming_strings = on",
        rb"SELECT 'a\'",
        b"X",
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT 1 -- x\r",
        b"SELECT E'a' -- x\n '\\';'",
        b"SELECT E'a'--x\r'\\';'",
        b"SELECT E'a'\r'\\';'",
        b"SELECT E'a'\n--x\n--y\n 'b\\'' -- ;\n ';'",
        b"SELECT E'a' - '\\'",
        b"SELECT E'a' /* x\n */ '\\'",
        b"SELECT E'a' -- x\n - '\\'",
        b"SELECT E'a'\f'\\'",
    ],
)
@pytest.mark.parametrize("joins_inserts", [False, True])
def test_lines_and_strings_end_where_they_end_for_a_server(text: bytes, joins_inserts: bool) -> None:
    text = text.replace(b"SELECT", b"INSERT INTO t VALUES") if joins_inserts else text
    whole = OPENING + text + b"; SELECT 2;" + CLOSING
    for cuts in (range(0), range(len(whole))):
        events = split(whole, cuts, joins_inserts=joins_inserts)[0]

        assert [event.text for event in events if isinstance(event, Statement)] == [text, b"SELECT 2"]


@pytest.mark.parametrize(
    "command",
    [
        b"\\! touch /tmp/x",
        b"\\set x `touch /tmp/x`",
        b"\\copy t from program 'id'",
        b"\\o /tmp/x",
        b"\\i /etc/passwd",
        b"\\unrestrict `id`",
        b"\\restrict a b",
        b"\\unrestrict a",
        b"\\restrict a\n\\unrestrict b",
        b"\\restrict a\n\\restrict b",
        b"\\restrict a\n\\restrict a",
        b"\\restrict a\n\\unrestrict a\n\\unrestrict a",
        b"\\restrict `id`",
        b"\\gexec",
        b"\\",
        b"\\.",
        b"SELECT 1 \\g |id",
        b"SELECT 1 \\gset",
        b"SELECT (1 \\! id\n);",
        b"SELECT 1; \\! id",
        b"CREATE FUNCTION f() BEGIN ATOMIC \\! id",
        b"SELECT 'x' \\! id",
        b'SELECT "x"\\! id',
        b"SELECT /* x */ \\! id",
        b"COPY t FROM stdin;\n1\n\\.\n\\! id",
        b"\\" + b"x" * 200_000,
        b"SET standard_conforming_strings = off; SELECT 'a\\\\' \\! id ';",
    ],
)
def test_a_client_command_is_refused_with_its_line(command: bytes) -> None:
    with pytest.raises(TextError, match=r"Line \d+: the file tries to run a client command") as refused:
        split(OPENING + command + b"\n" + CLOSING)

    assert refused.value.reason == "ARCHIVE_REFUSED"
    assert int(refused.value.text.split()[1].rstrip(":")) >= 5


def test_the_line_of_a_client_command_is_counted_through_rows_and_strings() -> None:
    text = OPENING + b"SELECT '\n\n';\nCOPY t FROM stdin;\n1\n2\n\\.\nSELECT $$\n$$;\n  \\! id\n"

    line = text.count(b"\n")

    with pytest.raises(TextError, match=f"Line {line}: "):
        split(text, range(0, len(text), 3))


@pytest.mark.parametrize("connect", [b"\\connect other", b"\\c other", b"\\connect -reuse-previous=on \"dbname='x'\""])
def test_a_dump_made_with_create_is_refused_by_name(connect: bytes) -> None:
    with pytest.raises(TextError, match="made with --create"):
        split(OPENING + connect + b"\n" + CLOSING)


def test_a_dump_of_a_whole_server_is_of_the_wrong_kind() -> None:
    with pytest.raises(TextError, match="dump of a whole server") as refused:
        split(b"--\n-- PostgreSQL database cluster dump\n--\n")

    assert refused.value.reason == "ARCHIVE_WRONG_KIND"


@pytest.mark.parametrize("cut", range(len(OPENING), len(RICH) - 4, 7))
def test_a_dump_cut_anywhere_is_truncated(cut: int) -> None:
    text = RICH[:cut]
    if b"dump complete" in text:
        return

    with pytest.raises(TextError) as refused:
        split(text)

    assert refused.value.reason in ("ARCHIVE_TRUNCATED", "ARCHIVE_REFUSED")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (OPENING, "ARCHIVE_TRUNCATED"),
        (OPENING + b"SELECT 1", "ARCHIVE_TRUNCATED"),
        (OPENING + b"SELECT 1;" + CLOSING + b"SELECT 2;", "ARCHIVE_DAMAGED"),
        (OPENING + b"SELECT 1;" + CLOSING + b"SELECT 2", "ARCHIVE_DAMAGED"),
        (OPENING + b"COPY t FROM stdin;\n1\n" + CLOSING, "ARCHIVE_TRUNCATED"),
        (OPENING + b"COPY t FROM stdin;\n1\n\\.", "ARCHIVE_TRUNCATED"),
        (OPENING + b"SELECT '" + CLOSING, "ARCHIVE_TRUNCATED"),
        (OPENING + b"/*" + CLOSING, "ARCHIVE_TRUNCATED"),
        (b"", "ARCHIVE_WRONG_KIND"),
        (b"SELECT 1;", "ARCHIVE_WRONG_KIND"),
        (OPENING + b"SELECT '\0';" + CLOSING, "ARCHIVE_WRONG_KIND"),
        (OPENING + b"COPY t FROM stdin; SELECT 1;\n" + CLOSING, "ARCHIVE_REFUSED"),
    ],
)
def test_what_is_no_whole_dump_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(TextError) as refused:
        split(text)

    assert refused.value.reason == reason


def test_two_dumps_in_one_file_are_whole_when_the_second_is() -> None:
    assert split(RICH + RICH)[1].facts.has_closing


def test_the_closing_comment_needs_no_end_of_line() -> None:
    assert statements(b"SELECT 1;") == [b"SELECT 1"]
    assert split(OPENING + b"SELECT 1;\n-- PostgreSQL database dump complete")[1].facts.has_closing


def test_a_statement_over_the_limit_is_refused() -> None:
    text = OPENING + b"SELECT '" + b"x" * 3000

    with pytest.raises(TextError, match="line 5 is longer than the limit of 2000 bytes") as refused:
        split(text, range(0, len(text), 100), limit_bytes=2000)

    assert refused.value.reason == "LIMIT_EXCEEDED"


def test_a_row_of_many_chunks_is_passed_on_in_parts_and_never_held() -> None:
    splitter = Splitter()
    chunk = b"x" * (1 << 20)
    list(splitter.feed(OPENING + b"COPY t FROM stdin;\nshort\n"))

    sizes = [
        [(len(event.data), event.ends_row) for event in splitter.feed(chunk) if isinstance(event, Rows)]
        for _ in range(20)
    ]
    tail = list(splitter.feed(b"\nnext\n\\.\n"))

    assert sum(size for part in sizes for size, _ in part) == 20 << 20
    assert not any(ends_row for part in sizes for _, ends_row in part)
    assert tail == [Rows(b"\nnext\n", True), EndOfRows()]


@pytest.mark.parametrize(
    "nasty",
    [
        b"(" * 100_000,
        b"'" * 100_000,
        b"((a'b'" * 25_000,
        b"$a" * 50_000,
        b"a" * 125_000,
        b"-" * 125_000,
        b"/*" * 50_000,
        b"E'\\" * 37_500,
        b"\\\\" * 50_000,
        b"INSERT INTO " * 12_500,
        b'"' * 100_000,
        b"- " * 62_500,
        b"x\r" * 62_500,
        b"'--\r" * 31_250,
        b"E'a'--\r" * 20_000,
        b"(E'a" + b"''" * 60_000,
        b'("a"' * 30_000,
        b"-/" * 60_000,
        b"(1,'a''b',x)" * 10_000,
    ],
    ids=lambda nasty: nasty[:6].decode(),
)
@pytest.mark.timeout(60)
def test_no_text_makes_the_splitter_slow(nasty: bytes) -> None:
    for prefix in (b"", b"SELECT ", b"INSERT INTO ", b"CREATE FUNCTION ", b"SELECT E'", b"COPY t FROM stdin;\n"):
        text = OPENING + prefix + nasty
        outcome(text, range(0, len(text), 4096))
