"""What the text of a refused import says can be done, and then the import goes."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from common.errors import ArchiveIncompatibleError
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.conftest import MakeApp
from tools.servers import postgres


def run_in(folder: Path, command: str, *, programs: Path) -> None:
    """As a person does who copies it."""
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-ec", command], cwd=folder, env=environment, check=True, capture_output=True)


@variants("major", [13, 15, 18], kept=[15])
async def test_a_foreign_data_wrapper_and_what_needs_it_can_be_left_out(make_app: MakeApp, major: int) -> None:
    app = make_app(major)
    app.run("CREATE TABLE public.t (a int); INSERT INTO t VALUES (1); CREATE TABLE public.server ()", as_app=True)
    before = await app.fingerprint()
    app.run(
        "CREATE FOREIGN DATA WRAPPER plain; COMMENT ON FOREIGN DATA WRAPPER plain IS 'a';"
        "CREATE SERVER far FOREIGN DATA WRAPPER plain; CREATE USER MAPPING FOR CURRENT_USER SERVER far;"
        "CREATE FOREIGN TABLE public.f (a int) SERVER far; COMMENT ON FOREIGN TABLE public.f IS 'b'"
    )
    archive = await app.export("custom")

    with pytest.raises(ArchiveIncompatibleError, match="a foreign data wrapper, which an import may not") as refusal:
        await app.stage(archive)
    (app.folder / "DUMP").write_bytes(archive)
    commands = refusal.value.next_step.partition("custom format: ")[2].partition("; then import NEW.sql")[0]
    run_in(app.folder, commands, programs=postgres(max(major, 15)).bin_directory)
    await app.bring_in((app.folder / "NEW.sql").read_bytes())

    assert before.differences(await app.fingerprint()) == []


async def test_the_rows_of_a_view_that_cannot_be_filled_can_be_left_out(make_app: MakeApp) -> None:
    """A function that finds its table by the search_path, which pg_dump empties, is the usual reason before 17."""
    app = make_app(15)
    app.run(
        "CREATE TABLE public.t (a int); INSERT INTO t VALUES (1);"
        "CREATE FUNCTION public.f() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM t); END';"
        'CREATE MATERIALIZED VIEW public."It\'s" AS SELECT public.f() AS number',
        as_app=True,
    )

    with pytest.raises(ArchiveIncompatibleError, match=r'fills the materialized view public\."It\'s"') as refusal:
        await app.stage(await app.export())
    options = shlex.split(refusal.value.next_step.partition("pg_dump ")[2].partition("), import that")[0])
    await app.bring_in(app.dump(*options))
    app.run(refusal.value.next_step.partition("then run ")[2], as_app=True)

    assert app.run('SELECT number FROM "It\'s"') == [(1,)]
