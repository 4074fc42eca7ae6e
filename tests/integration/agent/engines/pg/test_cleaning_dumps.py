"""Dumps made with --clean, which begin by removing what a new database never had."""

from __future__ import annotations

from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.conftest import MakeApp

CONTENT = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, b text DEFAULT 'x' CHECK (b <> 'y'));
    INSERT INTO shop.t (b) VALUES ('a'), ('b');
    CREATE VIEW shop.by_key AS SELECT id, b FROM shop.t GROUP BY id;
    CREATE VIEW public.of_nothing AS SELECT NULL::int AS a;
    CREATE DOMAIN shop.positive AS int CHECK (VALUE > 0);
    CREATE POLICY p ON shop.t USING (true);
    SELECT lo_from_bytea(77, 'x');
"""


@variants("rights", ["SUPERUSER", "CREATEDB", ""], kept=[""])
@variants("options", [["--clean"], ["--clean", "--if-exists"]], ids=" ".join, kept=[["--clean", "--if-exists"]])
async def test_a_view_that_needs_a_key_and_large_objects_come_in(
    make_app: MakeApp, rights: str, options: list[str]
) -> None:
    source = make_app()
    source.run(CONTENT, as_app=True)
    app = make_app(rights=rights, has_admin=False)

    await app.bring_in(source.dump(*options))

    assert (await source.fingerprint()).differences(await app.fingerprint()) == []
    assert app.run("SELECT id, b FROM shop.by_key ORDER BY 1") == [(1, "a"), (2, "b")]
