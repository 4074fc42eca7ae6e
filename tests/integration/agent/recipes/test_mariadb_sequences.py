"""Columns with defaults from sequences, which the server names with their schema: out, in, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.mariadb.imports.exchange import Exchange
from agent.recipes.base import Recovered
from common.errors import AppBusyError, ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.mariadb_apps import SEQUENCED, MariadbApp

TAKE_THE_NEXT = "INSERT INTO tickets (n) VALUES (9); SELECT MAX(id), MAX(after) FROM tickets"


class KilledError(BaseException):
    """The agent's process ended here."""


GONE = "DROP TABLE tickets, marks, log; DROP SEQUENCE sq; CREATE TABLE other (id int)"


async def test_defaults_give_the_next_number_of_a_sequence_after_an_import_and_after_its_undo(shop: MariadbApp) -> None:
    shop.sql(SEQUENCED)
    exported = await shop.export()
    shop.sql("SELECT SETVAL(sq, 5000); INSERT INTO tickets (n) VALUES (3)")
    made = shop.sql("SHOW CREATE TABLE tickets")
    record = MemoryRecord()

    preview = await shop.stage(exported.content, record)
    # Nothing is left to be done after the RENAME, so the app's inserts need not fail for a moment.
    assert record.facts["must_lead_defaults"] is False
    await shop.recipe.restore(record, NotedProgress())

    assert exported.fingerprint is not None
    assert (await shop.fingerprint()).differences(exported.fingerprint) == []
    assert shop.sql("SHOW CREATE TABLE tickets") == made
    assert shop.sql(TAKE_THE_NEXT) == "3\t4"
    assert shop.sql("SELECT COUNT(*) FROM log") == "1"
    # The sequence, the tickets, and what the trigger wrote of them; the marks are the same, their default included.
    assert (preview.items["tables"].changed, preview.items["tables"].same) == (3, 1), preview.items

    await shop.recipe.undo(record, NotedProgress())

    assert shop.sql("SHOW CREATE TABLE tickets") == made
    assert shop.sql(TAKE_THE_NEXT) == "5002\t5003"


async def test_a_default_keeps_characters_that_the_servers_catalogs_do_not_tell(shop: MariadbApp) -> None:
    shop.sql(
        "SET NAMES utf8mb4; CREATE SEQUENCE sq; CREATE TABLE t (id int, `a?` varchar(99) CHARACTER SET utf8mb4"
        " DEFAULT concat('?🐻é', nextval(sq), '🐻?') COMMENT ' DEFAULT concat()') CHARACTER SET utf8mb4"
    )
    exported, made = await shop.export(), shop.sql("SHOW CREATE TABLE t")
    shop.sql("DROP TABLE t; DROP SEQUENCE sq; CREATE TABLE other (id int)")

    record = await shop.import_(exported.content)
    shop.sql("INSERT INTO t (id) VALUES (1)")

    assert "🐻" in made
    assert shop.sql("SHOW CREATE TABLE t") == made
    assert shop.sql("SELECT `a?` FROM t") == "?🐻é1🐻?"
    await shop.recipe.discard(record)


async def test_people_load_an_export_with_defaults_from_sequences_with_their_own_client(shop: MariadbApp) -> None:
    shop.sql(SEQUENCED)
    exported = await shop.export("sql")
    before = shop.dumped()
    shop.sql(GONE)

    shop.sql(f"DROP TABLE other; {exported.content.decode()}")

    assert shop.dumped() == before
    assert shop.sql(TAKE_THE_NEXT) == "3\t4"


async def test_defaults_from_sequences_come_into_an_app_that_has_none(shop: MariadbApp, tmp_path: Path) -> None:
    shop.sql(SEQUENCED)
    other = MariadbApp(shop.server, tmp_path / "other")
    other.sql("CREATE TABLE sq (id int)")

    record = await other.import_((await shop.export()).content)

    assert other.sql(TAKE_THE_NEXT) == "3\t4"
    assert shop.database not in other.sql("SHOW CREATE TABLE tickets")
    assert shop.sql("SELECT COUNT(*) FROM tickets") == "2"
    await other.recipe.undo(record, NotedProgress())
    assert other.sql("SHOW TABLES") == "sq"
    assert other.leftovers(record) == []


async def _staged_where_all_is_gone(shop: MariadbApp) -> MemoryRecord:
    """An export of the app staged after its tables and sequences went."""
    shop.sql(SEQUENCED)
    record = MemoryRecord()
    content = (await shop.export()).content
    shop.sql(GONE)
    await shop.stage(content, record)
    return record


async def test_an_agent_that_ends_before_the_defaults_are_right_corrects_them_when_it_comes_back(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await _staged_where_all_is_gone(shop)

    async def ends(_: Exchange) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Exchange, "lead_defaults", ends)
        with pytest.raises(KilledError):
            await shop.recipe.restore(record, NotedProgress())
    assert await shop.recipe.recover(record) is Recovered.IMPORTED

    assert shop.sql(TAKE_THE_NEXT) == "3\t4"


async def test_when_a_default_cannot_be_led_the_tables_go_back_and_the_restore_can_be_tried_again(
    shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await _staged_where_all_is_gone(shop)

    async def finds_no_lock(_: Exchange) -> None:
        raise AppBusyError("The table is in use.")

    with monkeypatch.context() as patch:
        patch.setattr(Exchange, "lead_defaults", finds_no_lock)
        with pytest.raises(AppBusyError):
            await shop.recipe.restore(record, NotedProgress())
    assert await shop.recipe.recover(record) is Recovered.PREVIOUS
    assert shop.sql("SHOW TABLES") == "other"

    await shop.recipe.restore(record, NotedProgress())

    assert shop.sql(TAKE_THE_NEXT) == "3\t4"


async def test_a_default_from_another_databases_sequence_is_told_by_the_export_and_refused_by_the_import(
    shop: MariadbApp, tmp_path: Path
) -> None:
    other = MariadbApp(shop.server, tmp_path / "other")
    other.sql("CREATE SEQUENCE far")
    shop.server.sql(f"CREATE TABLE near (id int DEFAULT nextval({other.database}.far))", database=shop.database)

    exported = await shop.export("sql")
    with pytest.raises(ArchiveIncompatibleError, match=rf"Line \d+: .*sequence of the database {other.database}"):
        await shop.stage(exported.content, MemoryRecord())

    [warning] = exported.warnings
    assert "near" in warning
    assert "cannot be imported" in warning


async def test_the_next_number_of_a_sequence_comes_back_wherever_it_was_and_counts_in_the_fingerprint(
    shop: MariadbApp,
) -> None:
    shop.sql(
        "CREATE SEQUENCE ahead; SELECT NEXTVAL(ahead);"
        "CREATE SEQUENCE back START WITH 100; ALTER SEQUENCE back RESTART 2;"
        "CREATE SEQUENCE down INCREMENT -2 MINVALUE -9 MAXVALUE 20 START WITH -3 NOCACHE CYCLE; SELECT NEXTVAL(down);"
        "CREATE SEQUENCE done MAXVALUE 2 NOCACHE; SELECT NEXTVAL(done), NEXTVAL(done);"
    )
    exported = await shop.export("sql")
    shop.sql("SELECT SETVAL(ahead, 5000); DROP SEQUENCE done")
    altered = await shop.fingerprint()

    await shop.import_(exported.content)

    assert exported.fingerprint is not None
    assert [difference.partition(":")[0] for difference in altered.differences(exported.fingerprint)] == [
        "sequence ahead",
        "sequence done",
    ]
    assert (await shop.fingerprint()).differences(exported.fingerprint) == []
    assert shop.sql("SELECT NEXTVAL(ahead), NEXTVAL(back), NEXTVAL(down)") == "1001\t2\t-5"


async def test_export_and_preview_count_the_same_rows_and_what_a_sequence_keeps_is_none(shop: MariadbApp) -> None:
    shop.sql(SEQUENCED)
    exported = await shop.export()

    record = MemoryRecord()
    preview = await shop.stage(exported.content, record)
    await shop.recipe.discard(record)

    assert exported.counts["rows"] == 2
    assert preview.counts_now == preview.counts_after == {"tables": 4, "rows": 2}
    assert preview.changes[0] == "4 tables with 2 rows take the place of 4 with 2."
