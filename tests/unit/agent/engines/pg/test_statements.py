"""What is done with each kind of statement of an upload."""

from __future__ import annotations

from contextlib import suppress

import pytest

from agent.engines.pg.loading.statements import Decision, Judge, There, Way, copied_table
from agent.engines.pg.server.text_errors import TextError


def judge(*, server: int = 170010, extensions: frozenset[bytes] = frozenset({b"pg_stat_statements"})) -> Judge:
    there = There(extensions, extension_tables=frozenset({(b"public", b"srs")}))
    return Judge(there, server_version_num=server)


WAYS = {
    Way.RUN: [
        "CREATE TABLE t (a int)",
        "CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA pg_catalog",
        "CREATE EXTENSION citext",
        "CREATE OR REPLACE VIEW v AS SELECT NULL::text AS a, t.id FROM t GROUP BY t.id",
        'ALTER TABLE t ADD COLUMN "x OWNER TO y" int',
        "ALTER TABLE t ALTER COLUMN a SET DEFAULT 'OWNER TO b'",
        "ALTER TABLE ONLY t ATTACH PARTITION p DEFAULT",
        "SELECT pg_catalog.setval('s', 1, false)",
        "SELECT pg_catalog.lo_create('1')",
        "BEGIN",
        "SET LOCAL search_path = x",
        "SET ROLE x",
        "SET SESSION AUTHORIZATION x",
        "COMMENT ON TABLE t IS 'x'",
        "COMMENT ON EXTENSION citext IS 'x'",
        "VACUUM",
        "",
    ],
    Way.PUBLICATION: [
        "CREATE PUBLICATION p FOR TABLE t",
        "CREATE PUBLICATION p WITH (publish = 'insert')",
        "ALTER PUBLICATION p ADD TABLE ONLY t",
        "COMMENT ON PUBLICATION p IS 'x'",
    ],
    Way.SETTING: [
        "SET search_path = x",
        "set session datestyle to 'ISO'",
        "SET TIME ZONE 'UTC'",
        "SET NAMES 'LATIN1'",
        "SET client_encoding = 'LATIN1'",
        "SET client_encoding = 'SQL_ASCII'",
        "SET client_encoding TO utf8",
        'SET SESSION client_encoding = "iso-8859-15"',
        "SET client_encoding = 'Windows-1252'",
        "SET standard_conforming_strings = off",
        "SET standard_conforming_strings TO 'on'",
        "SET default_tablespace = ''",
        "SET transaction_timeout = 0",
        "RESET ALL",
        "SELECT pg_catalog.set_config('search_path', '', false)",
    ],
    Way.INSERT: ["INSERT INTO t VALUES (1)", "insert into t values (1);\nINSERT INTO t VALUES (2)"],
    Way.ROWS: [
        "COPY t FROM stdin",
        'COPY public.t (a, "b""; c") FROM STDIN',
        'copy "a b".t(a)from stdin with (format csv)',
        "COPY t FROM stdin WITH (FORMAT 'csv', HEADER true, DELIMITER ',', NULL 'where', ENCODING 'UTF8')",
        "COPY t FROM stdin DELIMITER AS E'|' CSV",
        "COPY t (grün) FROM stdin",
        "COPY srs FROM stdin",
    ],
    Way.COMMENT_IF_OWN: ["COMMENT ON SCHEMA public IS 'my own'", "COMMENT ON SCHEMA \"public\" IS ''"],
    Way.EXTENSION: ["CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public", 'CREATE EXTENSION c SCHEMA "a b"'],
    Way.NO_ROWS: ["COPY public.srs (n, auth) FROM stdin", 'COPY "public".srs FROM stdin'],
    Way.REMOVE: [
        'CREATE OR REPLACE VIEW s."v" AS\nSELECT\n    NULL::integer AS id,\n    NULL::text AS b',
        "DROP TABLE t",
        "DROP SCHEMA IF EXISTS shop",
        "DROP EXTENSION citext",
        "ALTER TABLE ONLY public.t DROP CONSTRAINT c",
        "ALTER TABLE t ALTER COLUMN id DROP DEFAULT",
        "ALTER PUBLICATION p DROP TABLE ONLY t",
        "SELECT pg_catalog.lo_unlink('1')",
    ],
    Way.FILL: ["REFRESH MATERIALIZED VIEW public.m", "refresh materialized view m with data"],
    Way.SKIP: [
        "ALTER TABLE public.t OWNER TO postgres",
        'ALTER FUNCTION f(a int, "b" text) OWNER TO "The ""Owner"""',
        "ALTER LARGE OBJECT 1 OWNER TO größe$1",
        "ALTER SCHEMA s\n OWNER\tTO x ",
        "GRANT ALL ON TABLE t TO x",
        "REVOKE ALL ON t FROM PUBLIC",
        "ALTER DEFAULT PRIVILEGES FOR ROLE x GRANT ALL ON TABLES TO y",
        "SECURITY LABEL FOR a ON TABLE t IS 'x'",
        "COMMENT ON DATABASE d IS 'x'",
        "COMMENT ON EXTENSION plpgsql IS 'x'",
        "COMMENT ON EXTENSION pg_stat_statements IS 'x'",
        "COMMENT ON SCHEMA public IS 'standard public schema'",
        "CREATE EXTENSION IF NOT EXISTS plpgsql WITH SCHEMA pg_catalog",
        "CREATE EXTENSION pg_stat_statements",
        'DROP EXTENSION IF EXISTS "pg_stat_statements"',
        "DROP SCHEMA IF EXISTS public",
        "DROP SCHEMA public CASCADE",
        "SET default_tablespace = fast",
        "SET default_tablespace = 'fast'",
        "SELECT * FROM pg_catalog.pg_restore_relation_stats('version', '180000'::integer)",
        'ALTER TABLE ONLY t ALTER COLUMN "a" SET (pg_attver=26833008)',
    ],
    Way.DEFER: [
        "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
        "ALTER EVENT TRIGGER e ENABLE ALWAYS",
        "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p",
        "CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert')",
        "CREATE PUBLICATION p FOR TABLES IN SCHEMA s",
        "ALTER PUBLICATION p ADD TABLES IN SCHEMA s",
    ],
}


@pytest.mark.parametrize(
    ("way", "text"), [(way, text) for way, texts in WAYS.items() for text in texts], ids=lambda value: str(value)[:60]
)
def test_each_kind_of_statement_has_its_way(way: Way, text: str) -> None:
    assert judge().decide(text.encode(), 1).way is way


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("CREATE DATABASE d", "--create"),
        ("create  database d", "--create"),
        ("DROP DATABASE IF EXISTS d", "--create"),
        ("ALTER DATABASE d SET x = 1", "--create"),
        ("COPY t FROM PROGRAM 'x'", "not the file itself"),
        ("COPY t FROM '/etc/passwd'", "not the file itself"),
        ("COPY t TO STDOUT", "not the file itself"),
        ("COPY (SELECT 1) TO STDOUT", "not the file itself"),
        ("COPY t FROM stdin; DROP TABLE t", "not the file itself"),
        ("COPY t FROM stdin WITH (DELIMITER E'\\\\')", "not the file itself"),
        ("COPY/**/t FROM stdin", "not the file itself"),
        ("COPY t FROM stdin WITH (ON_ERROR ignore)", "other rows than the file has"),
        ("COPY t FROM stdin (format csv, reject_limit 5)", "with reject_limit"),
        ("COPY t FROM stdin WITH (LOG_VERBOSITY silent)", "other rows"),
        ("COPY t FROM stdin WHERE a > 1", "with WHERE"),
        ("COPY t FROM stdin WITH (FORMAT csv) WHERE a > 1", "with WHERE"),
        ("COPY t FROM stdin CSV FORCE NOT NULL a", "with FORCE"),
        ('COPY t FROM stdin WITH (FORMAT csv, "force_null" (a))', "other rows"),
        ("COPY t FROM stdin WITH (DEFAULT 'x')", "other rows"),
        ("PREPARE TRANSACTION 'x'", "prepared transaction"),
        ("SET client_encoding = 'SJIS'", "written in SJIS"),
        ("SET client_encoding TO gb18030", "written in gb18030"),
        ("SET NAMES 'Shift_JIS_2004'", "written in Shift_JIS_2004"),
        ("SET client_encoding = 'WIN936'", "written in WIN936"),
        ("SET LOCAL client_encoding = 'SJIS'", "written in SJIS"),
        (r"SET client_encoding = E'\x53JIS'", "pg_dump does not write"),
        ("SET client_encoding = 'utf' /**/ '8'", "pg_dump does not write"),
        ("SET client_encoding = 'UTF8'\n'x'", "pg_dump does not write"),
        (r"SET client_encoding = U&'\0053JIS'", "pg_dump does not write"),
        ("SET client_encoding = $$SJIS$$", "pg_dump does not write"),
        ("SET client_encoding /**/ = 'SJIS'", "pg_dump does not write"),
        ("SET client_encoding FROM CURRENT", "pg_dump does not write"),
        ("SET client_encoding TO DEFAULT", "pg_dump does not write"),
        ("SET client_encoding = 'FUTURE'", "pg_dump does not write"),
        ("SET NAMES E'SJIS'", "pg_dump does not write"),
        ("SET NAMES", "pg_dump does not write"),
        ("SET \"client_encoding\" = 'SJIS'", "pg_dump does not write"),
        (r'SET U&"client\005fencoding" = SJIS', "pg_dump does not write"),
        ("SET/**/client_encoding = 'SJIS'", "pg_dump does not write"),
        ("SET -- x\n client_encoding = 'SJIS'", "pg_dump does not write"),
        (r"SET standard_conforming_strings = E'o\x66f'", "pg_dump does not write"),
        ("SET standard_conforming_strings = tru", "pg_dump does not write"),
    ],
)
def test_what_reaches_beyond_its_database_is_refused(text: str, said: str) -> None:
    with pytest.raises(TextError, match=said) as refused:
        judge().decide(text.encode(), 7)

    assert refused.value.text.startswith("Line 7: ")


def test_a_setting_of_newer_clients_is_left_out_on_older_servers() -> None:
    decision = judge(server=160014).decide(b"SET transaction_timeout = 0", 1)

    assert decision == Decision(Way.SKIP, "transaction_timeout")


def test_the_schema_that_every_database_has_is_not_made_twice() -> None:
    assert judge().decide(b"CREATE SCHEMA public", 1).text == b"CREATE SCHEMA IF NOT EXISTS public"


@pytest.mark.parametrize(
    "options", ["n_distinct=5, pg_attver=1", "pg_attver=1, n_distinct=5", "pg_attver = 1,n_distinct=5"]
)
def test_a_columns_version_is_taken_out_of_its_options(options: str) -> None:
    decision = judge().decide(f"ALTER TABLE ONLY t ALTER COLUMN a SET ({options})".encode(), 1)

    assert decision.text == b"ALTER TABLE ONLY t ALTER COLUMN a SET (n_distinct=5)"


@pytest.mark.parametrize(
    "text",
    [
        "CREATE SERVER far FOREIGN DATA WRAPPER w OPTIONS (host 'x')",
        "CREATE SERVER IF NOT EXISTS far FOREIGN DATA WRAPPER w",
        "ALTER SERVER far OPTIONS (SET host 'x')",
        "COMMENT ON SERVER far IS 'x'",
        "DROP SERVER IF EXISTS far",
        "CREATE USER MAPPING FOR \"a b\" SERVER far OPTIONS (password 'p')",
        "CREATE USER MAPPING FOR PUBLIC SERVER far",
        "DROP USER MAPPING IF EXISTS FOR CURRENT_USER SERVER far",
    ],
)
def test_foreign_servers_that_are_there_stay_as_they_are(text: str) -> None:
    judging = Judge(There(foreign_servers=frozenset({b"far", b"Other"})), server_version_num=170010)

    assert judging.decide(text.encode(), 1) == Decision(Way.SKIP, "foreign servers")
    assert judging.decide(text.replace("far", '"Other"').encode(), 1).way is Way.SKIP
    assert judging.decide(text.replace("far", "other").encode(), 1).way in (Way.RUN, Way.REMOVE)


def test_what_belongs_to_a_deferred_publication_is_deferred_with_it() -> None:
    judging = judge()
    judging.decide(b'CREATE PUBLICATION "All" FOR ALL TABLES', 1)

    decision = judging.decide(b"COMMENT ON PUBLICATION \"All\" IS 'x'", 2)

    assert (decision.way, decision.what, decision.name) == (Way.DEFER, "publication", b'"All"')


@pytest.mark.parametrize(
    "text",
    [
        "CREATE SCHEMA mathison_kept_0123456789ab_1",
        'CREATE SCHEMA IF NOT EXISTS "mathison_drop_0123456789ab_0" AUTHORIZATION x',
        "ALTER SCHEMA a RENAME TO mathison_kept_0123456789ab_1",
    ],
)
def test_a_schema_named_like_those_that_imports_keep_is_refused(text: str) -> None:
    with pytest.raises(TextError, match="keeps previous data") as refused:
        judge().decide(text.encode(), 4)

    assert refused.value.reason == "ARCHIVE_REFUSED"


@pytest.mark.parametrize(
    "name",
    [
        "mathison_kept_x",
        "mathison_kept_0123456789ab_x",
        "mathison_kept_0123456789ab_1a",
        '"mathison_kept_0123456789ab_1 "',
        '"MATHISON_KEPT_0123456789ab_1"',
    ],
)
def test_a_schema_that_only_begins_like_those_that_imports_keep_is_the_apps(name: str) -> None:
    assert judge().decide(f"CREATE SCHEMA {name}".encode(), 4).way is Way.RUN


def test_extensions_that_were_asked_for_are_known_by_their_plain_names() -> None:
    judging = judge()
    for name in ("citext", '"uuid-ossp"', "PG_TRGM", "pg_stat_statements"):
        judging.decide(f"CREATE EXTENSION IF NOT EXISTS {name} WITH SCHEMA public".encode(), 1)

    assert judging.extensions.keys() == {b"citext", b"uuid-ossp", b"pg_trgm", b"pg_stat_statements"}
    assert set(judging.extensions.values()) == {b"public"}


@pytest.mark.parametrize(
    ("text", "table", "are_lines_rows"),
    [
        ("COPY public.t (a, b) FROM stdin", b"public.t", True),
        ('COPY "a.b"."c;d" FROM stdin', b'"a.b"."c;d"', True),
        ("COPY t FROM stdin WITH (FORMAT csv)", b"t", False),
        ("COPY t FROM stdin CSV", b"t", False),
    ],
)
def test_the_table_that_rows_go_into_is_known(text: str, table: bytes, are_lines_rows: bool) -> None:
    assert copied_table(text.encode()) == (table, are_lines_rows)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("start", ["ALTER TABLE ", "COPY t (", "SET x = ", "CREATE SCHEMA ", "COMMENT ON ", "SELECT "])
@pytest.mark.parametrize("part", [" OWNER TO ", '"a" ', "a,", " DROP ", "pg_attver ", "( "])
def test_no_statement_makes_the_decision_slow(start: str, part: str) -> None:
    text = (start + part * 100_000).encode()

    with suppress(TextError):
        judge().decide(text, 1)
