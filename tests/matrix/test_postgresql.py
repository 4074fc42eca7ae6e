"""PostgreSQL 13 to 18, each into each, with the clients of all majors that the agent's image carries."""

from __future__ import annotations

import pytest

from agent.engines.pg.exports.fingerprint import Fingerprint
from common.errors import ArchiveIncompatibleError
from tests.integration.agent.engines.pg.conftest import MakeApp
from tests.matrix.cells import Cell, Note
from tools.servers import postgres

MAJORS = (13, 14, 15, 16, 17, 18)
CLIENT_MAJORS = (15, 16, 17, 18)
NEW_IN_14 = """
    DROP TYPE shop.span CASCADE;
    DO $$ DECLARE f regprocedure; BEGIN
      FOR f IN SELECT oid FROM pg_proc WHERE prosqlbody IS NOT NULL AND oid >= 16384 LOOP
        EXECUTE format('DROP ROUTINE %s CASCADE', f);
      END LOOP;
    END $$
"""
"""What 13 has no words for: multirange types, which belong to range types, and functions with a parsed body."""
TITLES = {"sql.gz": "PostgreSQL, as SQL text", "custom": "PostgreSQL, in pg_dump's custom format"}


Exports = dict[tuple[int, str, bool], tuple[bytes, Fingerprint]]


@pytest.fixture(scope="module")
def exports() -> Exports:
    """By major and format, and whether without what is new in 14: each is filled and comes out for the first target."""
    return {}


@pytest.mark.parametrize("target_major", MAJORS)
@pytest.mark.parametrize("form", TITLES)
@pytest.mark.parametrize("source_major", MAJORS)
async def test_content_is_equal_in_every_other_version(
    source_major: int, form: str, target_major: int, make_app: MakeApp, exports: Exports, note: Note
) -> None:
    clients = [str(postgres(major).bin_directory) for major in CLIENT_MAJORS]
    is_less = target_major < 14 <= source_major
    if (source_major, form, is_less) not in exports:
        source = make_app(source_major)
        source.recipe = source.new_recipe(client_directories=clients)
        source.fill()
        if is_less:
            source.run(NEW_IN_14)
        exports[source_major, form, is_less] = await source.export(form), await source.fingerprint()
    archive, fingerprint = exports[source_major, form, is_less]
    target = make_app(target_major)
    target.recipe = target.new_recipe(client_directories=clients)

    record = await target.bring_in(archive)
    await target.recipe.discard(record)

    assert fingerprint.differences(await target.fingerprint()) == []
    assert target.left_over() == []
    note(Cell(TITLES[form], str(source_major), str(target_major), "equal"))


@pytest.mark.parametrize("form", TITLES)
async def test_a_range_type_is_refused_by_13_before_anything_changed(form: str, make_app: MakeApp) -> None:
    source, target = make_app(18), make_app(13)
    source.fill()
    target.recipe = target.new_recipe(client_directories=[str(postgres(18).bin_directory)])
    target.fill()
    before = await target.fingerprint()

    with pytest.raises(ArchiveIncompatibleError, match="multirange_type_name"):
        await target.stage(await source.export(form))

    assert before.differences(await target.fingerprint()) == []
    assert target.left_over() == []
