"""Files in which a server would read other statements than were looked at: what is hidden so never runs."""

from __future__ import annotations

import pytest

from common.errors import ArchiveRefusedError, ServiceError
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import unsealed
from tests.integration.agent.engines.pg.conftest import MakeApp

HARM = (
    b"COMMIT; BEGIN; DO $d$ DECLARE kept text; BEGIN"
    b" SELECT nspname INTO kept FROM pg_namespace WHERE nspname ~ '^mathison_kept_.*_1$';"
    b" EXECUTE format('UPDATE %I.t SET a = 7', kept); END $d$; COMMIT; SET client_encoding TO UTF8; BEGIN"
)
SET_BY_CODE = (
    b"CREATE FUNCTION public.sets(text) RETURNS text LANGUAGE plpgsql AS"
    b" $$ BEGIN PERFORM pg_catalog.set_config('client_encoding', 'SJIS', false); RETURN 'x'; END $$;\n"
    b"CREATE TABLE public.u (a text DEFAULT public.sets('x'), b text);\n"
    b"INSERT INTO public.u VALUES (DEFAULT, 'x');\nCOMMENT ON TABLE public.u IS 'x';\n"
)
HIDING = {
    "encoding": b"SET client_encoding = E'\\x53JIS'; INSERT INTO public.u VALUES (E'\x83\\'); HARM -- ');",
    "encoding set by code": SET_BY_CODE + b"INSERT INTO public.u VALUES ('x', E'\x83\\'); HARM -- ');",
    "comment in a string": b"INSERT INTO public.u VALUES (E'a' --\n'b\\', '); HARM --');",
    "end of a line": b"INSERT INTO public.u VALUES ('a', 'b') --\r; HARM --\n;",
}


@pytest.mark.parametrize("hiding", HIDING.values(), ids=HIDING.keys())
@variants("rights", ["", "CREATEDB", "CREATEDB CREATEROLE"])
async def test_what_is_hidden_in_an_insert_does_not_run(make_app: MakeApp, rights: str, hiding: bytes) -> None:
    app = make_app(rights=rights, has_admin=False)
    app.run("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", as_app=True)
    before = app.outside()
    hidden = hiding.replace(b"HARM", HARM)
    if b"TABLE public.u" not in hidden:
        hidden = b"CREATE TABLE public.u (a text, b text);\n" + hidden
    archive = unsealed(await app.export("sql"))
    hostile = archive.replace(b"\nCREATE TABLE public.t ", b"\n" + hidden + b"\nCREATE TABLE public.t ")

    with pytest.raises(ServiceError) as refused:
        await app.bring_in(hostile)

    assert not refused.value.says_what_changed
    if rights != "CREATEDB CREATEROLE" or b"SJIS" in hidden:
        assert isinstance(refused.value, ArchiveRefusedError)
    assert app.run("SELECT a FROM public.t") == [(1,)]
    assert app.outside() == before


async def test_a_session_begins_in_an_encoding_of_servers_whatever_the_database_says(make_app: MakeApp) -> None:
    app = make_app(has_admin=False)
    app.run("CREATE TABLE t AS SELECT 'あ'::text AS a", as_app=True)
    archive = unsealed(await app.export("sql")).replace(b"SET client_encoding = 'UTF8';\n", b"")
    app.run(f"ALTER DATABASE {app.database} SET client_encoding TO 'SJIS'", on="postgres")

    await app.bring_in(archive)

    assert app.run("SELECT a FROM t") == [("あ",)]
