"""With the app's own rights, only what pg_dump writes is run."""

from __future__ import annotations

import pytest

from agent.engines.pg.loading.restricted import RestrictedJudge
from agent.engines.pg.loading.statements import There, Way
from agent.engines.pg.server.text_errors import TextError

JUDGE = RestrictedJudge(There(), server_version_num=170000)


@pytest.mark.parametrize(
    "text",
    [
        "DROP DATABASE app",
        "drop\n\tdatabase app WITH (FORCE)",
        "ALTER DATABASE app RENAME TO x",
        "CREATE DATABASE x",
        "CREATE ROLE x SUPERUSER",
        "ALTER ROLE app PASSWORD 'x'",
        "ALTER USER app PASSWORD 'x'",
        "DROP ROLE app",
        "DROP OWNED BY app CASCADE",
        "REASSIGN OWNED BY app TO other",
        "ALTER SYSTEM SET fsync TO off",
        "CREATE TABLESPACE t LOCATION '/tmp'",
        "ROLLBACK",
        "END",
        "ABORT",
        "COMMIT AND CHAIN",
        "COMMIT PREPARED 'x'",
        "START TRANSACTION",
        "SAVEPOINT a",
        "RELEASE a",
        "PREPARE TRANSACTION 'x'",
        "SET ROLE other",
        "SET SESSION AUTHORIZATION other",
        "SET LOCAL search_path TO x",
        "SET TRANSACTION READ ONLY",
        "SET session_replication_role = replica",
        "RESET ROLE",
        "RESET ALL",
        "DO $$ BEGIN PERFORM 1; END $$",
        "CALL p()",
        "SELECT pg_terminate_backend(1)",
        "SELECT pg_catalog.pg_terminate_backend(1)",
        "SELECT pg_catalog.setval('s', (SELECT 1))",
        "SELECT pg_catalog.setval('s', f())",
        "SELECT pg_catalog.lo_create('1'), f()",
        "SELECT pg_catalog.setval('s\\', f()) --', 1)",
        "SELECT pg_catalog.set_config('search_path', '\\', f()) --', false)",
        "SELECT pg_catalog.set_config('role', 'x', false)",
        "SELECT pg_catalog.set_config('client_encoding', 'SJIS', false)",
        "SET client_encoding = E'\\x53JIS'",
        "SET client_encoding TO DEFAULT",
        "SELECT pg_catalog.set_config('search_path', f(), false)",
        "SELECT 1",
        "WITH x AS (DELETE FROM t RETURNING 1) SELECT 1",
        "VALUES (1)",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "TRUNCATE t",
        "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
        "LOCK TABLE t",
        "EXECUTE x",
        "PREPARE x AS SELECT 1",
        "DECLARE c CURSOR FOR SELECT 1",
        "LISTEN x",
        "NOTIFY x",
        "LOAD 'x'",
        "VACUUM",
        "CLUSTER",
        "ANALYZE",
        "CHECKPOINT",
        "DISCARD ALL",
        "IMPORT FOREIGN SCHEMA x FROM SERVER y INTO z",
        "COPY t TO PROGRAM 'id'",
        "COPY t FROM PROGRAM 'id'",
        "COPY t FROM '/etc/passwd'",
        "EXPLAIN ANALYZE DELETE FROM t",
    ],
)
def test_what_pg_dump_does_not_write_is_refused(text: str) -> None:
    with pytest.raises(TextError) as refusal:
        JUDGE.decide(text.encode(), 7)

    assert refusal.value.reason == "ARCHIVE_REFUSED"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("CREATE SERVER s FOREIGN DATA WRAPPER w", "a server"),
        ("CREATE FOREIGN DATA WRAPPER w", "a foreign data wrapper"),
        ("CREATE USER MAPPING FOR x SERVER s OPTIONS (password 'p')", "a user mapping"),
        ("CREATE ACCESS METHOD a TYPE TABLE HANDLER f", "an access method"),
        ("CREATE OR REPLACE PROCEDURAL LANGUAGE l", "a language"),
    ],
)
def test_what_pg_dump_writes_and_these_rights_are_not_for_can_be_left_out(text: str, what: str) -> None:
    with pytest.raises(TextError, match=f"Line 7 makes {what}, which") as refusal:
        JUDGE.decide(text.encode(), 7)

    assert refusal.value.reason == "ARCHIVE_INCOMPATIBLE"
    assert "pg_restore --use-list" in refusal.value.next_step


@pytest.mark.parametrize(
    "text",
    [
        "DROP TABLE IF EXISTS public.t",
        "DROP SCHEMA shop",
        "ALTER TABLE ONLY public.t DROP CONSTRAINT a",
        "GRANT ALL ON TABLE t TO x",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        "ALTER DEFAULT PRIVILEGES FOR ROLE x GRANT ALL ON TABLES TO y",
        "ALTER TABLE public.t OWNER TO x",
        "ALTER LARGE OBJECT 1 OWNER TO x",
        "SECURITY LABEL ON TABLE t IS 'x'",
        "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata WHERE oid = '77'",
        "CREATE OR REPLACE VIEW s.v AS\nSELECT\n    NULL::integer AS id",
        "SELECT * FROM pg_catalog.pg_restore_relation_stats('version', '180000'::integer)",
    ],
)
def test_what_an_import_has_no_need_of_is_left_out(text: str) -> None:
    assert JUDGE.decide(text.encode(), 7).way is Way.SKIP


@pytest.mark.parametrize("text", ["BEGIN", "commit"])
def test_the_transaction_around_large_objects_is_left_out_within_ours(text: str) -> None:
    within = RestrictedJudge(There(), server_version_num=170000, is_in_transaction=True)

    assert JUDGE.decide(text.encode(), 7).way is Way.RUN
    assert within.decide(text.encode(), 7).way is Way.SKIP


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE public.t (a integer)",
        "CREATE UNLOGGED TABLE t ()",
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        "CREATE UNIQUE INDEX i ON t (a)",
        "CREATE OPERATOR CLASS c FOR TYPE integer USING btree AS STORAGE integer",
        'CREATE TEXT SEARCH CONFIGURATION c (PARSER = pg_catalog."default")',
        "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON t DEFERRABLE FOR EACH ROW EXECUTE FUNCTION f()",
        "ALTER TABLE ONLY public.t ADD CONSTRAINT a PRIMARY KEY (a)",
        "ALTER SEQUENCE public.s OWNED BY public.t.a",
        "COMMENT ON TABLE public.t IS 'x'",
        "COPY public.t (a) FROM stdin",
        "INSERT INTO public.t VALUES (1)",
        "REFRESH MATERIALIZED VIEW public.m",
        "SET statement_timeout = 0",
        "SET client_encoding = 'UTF8'",
        "SET default_table_access_method = heap",
        "SET SESSION search_path TO public",
        "SELECT pg_catalog.set_config('search_path', '', false)",
        "SELECT pg_catalog.setval('public.s', 12, true)",
        "SELECT pg_catalog.setval('\"it''s\".s', -1, false)",
        "SELECT pg_catalog.setval(E'a\\'b', 1)",
        "SELECT pg_catalog.setval('a\\b''c', 1)",
        "SELECT pg_catalog.lo_create('4711')",
        "SELECT pg_catalog.lo_open('4711', 131072)",
        "SELECT pg_catalog.lowrite(0, '\\x00ff')",
        "SELECT pg_catalog.lo_close(0)",
    ],
)
def test_what_pg_dump_writes_is_run(text: str) -> None:
    assert JUDGE.decide(text.encode(), 7).way not in (Way.SKIP, Way.DEFER)
