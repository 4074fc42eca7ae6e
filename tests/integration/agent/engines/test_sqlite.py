"""Databases copied while they are written to, and looked at in a jail."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.archives.writing import Substitute
from agent.engines import child_bounds
from agent.engines.filesystem import opened_directory
from agent.engines.sqlite import bounds, uploads
from agent.engines.sqlite import snapshots as snapshot_module
from agent.engines.sqlite.child import connect_live
from agent.engines.sqlite.questions import Questions
from agent.engines.sqlite.snapshots import Snapshots, ask_database
from agent.engines.sqlite.uploads import check_database
from agent.engines.table_parts import Kind
from agent.jail import TOOL, argv_of_module
from agent.limits import Limits
from agent.processes import Child, Command
from common.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
    NoSpaceError,
    SourceUnreadableError,
    ToolFailedError,
)
from tests.fixtures.children import agent_children
from tests.fixtures.held_reading import hold_reading
from tests.fixtures.hot_journals import make_unfinished
from tests.fixtures.ledgers import TOTAL, Writer, make_ledger, mode_of, state_of
from tests.fixtures.odd_tables import add_odd_tables, add_table_of_unknown_module
from tests.fixtures.waiting import until

LIMITS = Limits(free_bytes=1)
_LOCKS_AT = 0x40000000


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def snapshots_of(volume: Path, work: Path, limits: Limits = LIMITS) -> Snapshots:
    return Snapshots(volume, work_directory=work, limits=limits)


async def taken(snapshots: Snapshots, database: Path, copy: Path | None = None) -> Substitute | None:
    """A snapshot, written to `copy`."""
    substitute = await snapshots.take(database.name, database.lstat())
    if substitute is not None:
        content = os.pread(substitute.descriptor, substitute.size, 0)
        substitute.close()
        if copy is not None:
            copy.write_bytes(content)
    return substitute


@pytest.mark.parametrize("mode", ["wal", "delete"])
async def test_twelve_of_twelve_snapshots_under_a_busy_writer_are_consistent(
    mode: str, volume: Path, work: Path
) -> None:
    database = volume / "ledger.db"
    make_ledger(database, mode=mode, rows=1000)
    found = []

    with Writer(database) as writer:
        async with snapshots_of(volume, work) as snapshots:
            for _ in range(12):
                await taken(snapshots, database, work / "copy")
                found.append((state_of(work / "copy"), mode_of(work / "copy")))

    assert found == [((TOTAL, "old"), "delete")] * 12
    assert writer.report["errors"] == {}
    assert writer.report["commits"] > 0
    assert snapshots.warnings == []
    assert mode_of(database) == mode


async def test_nothing_is_left_on_the_volume(volume: Path, work: Path) -> None:
    database = volume / "ledger.db"
    make_ledger(database)
    connected = sqlite3.connect(database)
    connected.execute("SELECT * FROM tag").fetchone()
    before = sorted(os.listdir(volume))

    async with snapshots_of(volume, work) as snapshots:
        substitute = await snapshots.take("ledger.db", database.lstat())
        assert substitute is not None
        # The copy is there and has no name.
        assert os.fstat(substitute.descriptor).st_size == substitute.size
        assert list((volume / ".mathison-data").rglob("snapshot-*")) == []
        substitute.close()

    connected.close()
    assert before == ["ledger.db", "ledger.db-shm", "ledger.db-wal"]
    assert os.listdir(volume) == ["ledger.db"]
    assert os.listdir(work) == []


async def test_changes_that_are_only_in_the_wal_are_in_the_snapshot(volume: Path, work: Path) -> None:
    database = volume / "ledger.db"
    make_ledger(database)
    with contextlib.closing(sqlite3.connect(database)) as app:
        app.execute("PRAGMA wal_autocheckpoint=0")
        app.execute("UPDATE tag SET tag = 'in the wal'")
        app.commit()

        async with snapshots_of(volume, work) as snapshots:
            await taken(snapshots, database, work / "copy")

    assert state_of(work / "copy") == (TOTAL, "in the wal")


async def test_a_file_that_only_begins_as_a_database_is_told(volume: Path, work: Path) -> None:
    (volume / "fake.db").write_bytes(b"SQLite format 3\0" + b"nothing of the kind" * 100)

    async with snapshots_of(volume, work) as snapshots:
        assert await taken(snapshots, volume / "fake.db") is None

    assert len(snapshots.warnings) == 1
    assert "'fake.db' begins as a SQLite database" in snapshots.warnings[0]


async def test_a_damaged_database_is_copied_and_told(volume: Path, work: Path) -> None:
    database = volume / "ledger.db"
    make_ledger(database, mode="delete")
    destroy_page(database, 5)

    async with snapshots_of(volume, work) as snapshots:
        await taken(snapshots, database, work / "copy")

    assert "SQLite finds the database 'ledger.db' damaged" in snapshots.warnings[0]
    assert (work / "copy").stat().st_size == database.stat().st_size


async def test_tables_of_any_kind_are_whole_in_a_copy_and_in_an_upload(volume: Path, work: Path) -> None:
    database = volume / "odd.db"
    add_odd_tables(database)
    add_table_of_unknown_module(database)

    async with snapshots_of(volume, work) as snapshots:
        await taken(snapshots, database, work / "copy")
    facts = await check_database(work / "copy", questions=Questions(with_content=True))

    assert snapshots.warnings == []
    assert facts.answers.content["odd_keys"].startswith("2 rows, ")
    assert facts.answers.content["odd_maps"].startswith("defined, ")


async def test_what_is_wrong_behind_a_table_with_a_key_in_another_order_is_found(tmp_path: Path) -> None:
    add_odd_tables(tmp_path / "odd.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "odd.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE wrong (a, b)")
        connection.execute("INSERT INTO wrong VALUES (1, NULL)")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE wrong (a, b NOT NULL)' WHERE name = 'wrong'")

    with pytest.raises(ArchiveDamagedError, match=r"NULL value in wrong\.b"):
        await check_database(tmp_path / "odd.db")


def destroy_page(database: Path, number: int) -> None:
    with database.open("r+b") as file:
        file.seek(4096 * (number - 1))
        file.write(bytes(100))


async def test_a_database_that_stays_locked_is_named(volume: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "BUSY_SECONDS", 0.2)
    database = volume / "ledger.db"
    make_ledger(database, mode="delete")
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as app:
        app.execute("BEGIN EXCLUSIVE")

        async with snapshots_of(volume, work) as snapshots:
            with pytest.raises(SourceUnreadableError, match=r"'ledger\.db' cannot be copied: it was locked"):
                await taken(snapshots, database)

    assert os.listdir(volume) == ["ledger.db"]


async def test_another_file_than_the_one_found_is_not_copied(volume: Path, work: Path) -> None:
    database = volume / "ledger.db"
    make_ledger(database, mode="delete")
    other = volume / "other.db"
    make_ledger(other, mode="delete", tag="secret")

    async with snapshots_of(volume, work) as snapshots:
        assert await snapshots.take("other.db", database.lstat()) is None

    assert "exchanged" in snapshots.warnings[0]


async def test_a_volume_without_room_has_its_snapshots_made_elsewhere(
    volume: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = volume / "ledger.db"
    make_ledger(database)
    room = {work.stat().st_ino: 1 << 40}
    monkeypatch.setattr(snapshot_module, "free_bytes", lambda place: room.get(os.fstat(place).st_ino, 0))

    async with snapshots_of(volume, work) as snapshots:
        await taken(snapshots, database, work / "copy")

    assert state_of(work / "copy") == (TOTAL, "old")


async def test_without_room_anywhere_there_is_no_snapshot(volume: Path, work: Path) -> None:
    database = volume / "ledger.db"
    make_ledger(database)

    async with snapshots_of(volume, work, Limits(free_bytes=1 << 60)) as snapshots:
        with pytest.raises(NoSpaceError):
            await taken(snapshots, database)

    assert os.listdir(volume) == ["ledger.db"]


def test_a_wal_database_of_another_user_is_not_opened(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = volume / "ledger.db"
    make_ledger(database)
    monkeypatch.setattr(os, "geteuid", lambda: database.stat().st_uid + 1)

    with pytest.raises(Exception, match="it belongs to uid") as raised:
        connect_live(str(database), busy_seconds=1)

    assert getattr(raised.value, "kind", "") == "foreign_owner"
    assert os.listdir(volume) == ["ledger.db"]


async def test_what_may_not_be_opened_is_named(volume: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = volume / "ledger.db"
    make_ledger(database)
    status = database.lstat()
    database.unlink()

    async with snapshots_of(volume, work) as snapshots:
        with pytest.raises(SourceUnreadableError, match=r"'ledger\.db' cannot be read"):
            await snapshots.take("ledger.db", status)


async def test_a_copy_is_read_for_its_content_while_others_are_made(
    volume: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_reading(monkeypatch, work / "gate")
    database, other = volume / "ledger.db", volume / "other.db"
    make_ledger(database)
    make_ledger(other, tag="other")
    expected = (await ask_database(volume, database.name, Questions(with_content=True))).content

    async with snapshots_of(volume, work) as snapshots:
        copy = await snapshots.take("ledger.db", database.lstat(), Questions(with_content=True))
        assert copy is not None
        copy.close()
        await taken(snapshots, other, work / "copy")
        await asyncio.to_thread((work / "gate").write_text, "")
        content = await asyncio.to_thread(snapshots.content, "ledger.db")

    assert content == expected
    assert len(content) == 4
    assert state_of(work / "copy") == (TOTAL, "other")
    assert sorted(os.listdir(volume)) == ["ledger.db", "other.db"]


async def test_what_would_wait_after_an_interruption_is_let_go_at_once(volume: Path, work: Path) -> None:
    database = volume / "ledger.db"
    make_ledger(database)

    async with snapshots_of(volume, work) as snapshots:
        await snapshots.take("ledger.db", database.lstat(), Questions(with_content=True))
        snapshots.interrupt()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.to_thread(snapshots.content, "ledger.db")
        with pytest.raises(asyncio.CancelledError):
            await asyncio.to_thread(snapshots.substitute, "ledger.db", database.lstat())


async def test_a_killed_snapshot_is_an_error_and_leaves_nothing(volume: Path, work: Path) -> None:
    database = volume / "ledger.db"
    make_ledger(database)

    async with snapshots_of(volume, work) as snapshots:
        await taken(snapshots, database)
        (child,) = agent_children()
        child.kill()
        with pytest.raises(ToolFailedError, match="SIGKILL"):
            await taken(snapshots, database)

    assert os.listdir(volume) == ["ledger.db"]


async def test_a_killed_agent_leaves_no_copy_and_the_next_one_cleans_up(volume: Path, work: Path) -> None:
    make_ledger(volume / "ledger.db")
    program = f"""
import asyncio, os
from pathlib import Path
from agent.engines.sqlite.snapshots import Snapshots
from agent.limits import Limits
async def main():
    volume = Path({str(volume)!r})
    async with Snapshots(volume, work_directory=Path({str(work)!r}), limits=Limits(free_bytes=1)) as snapshots:
        await snapshots.take("ledger.db", os.lstat(volume / "ledger.db"))
        print("taken", flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""
    agent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert agent.stdout is not None
    assert agent.stdout.readline() == b"taken\n"

    agent.kill()
    agent.communicate()

    left = [path for path in (volume / ".mathison-data").rglob("*") if path.is_file()]
    assert left == []
    async with snapshots_of(volume, work) as snapshots:
        await taken(snapshots, volume / "ledger.db")
    assert os.listdir(volume) == ["ledger.db"]


async def test_a_whole_database_tells_its_tables_and_what_it_is_asked_and_is_left_as_it_was(tmp_path: Path) -> None:
    make_ledger(tmp_path / "ledger.db", page_size=8192)
    (tmp_path / "ledger.db").chmod(0o600)
    questions = Questions({"tag": "SELECT tag FROM tag", "none": "SELECT 1 FROM absent"})

    facts = await check_database(tmp_path / "ledger.db", required_tables=["a", "tag"], questions=questions)

    assert facts.tables == ["a", "b", "tag"]
    assert facts.answers.rows == {"tag": [["old"]], "none": None}
    assert os.listdir(tmp_path) == ["ledger.db"]


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_bytes(b"hello world" * 1000)


def shortened(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def lengthened(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(4096))


def header_only(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (emptied, ArchiveWrongKindError),
        (text, ArchiveWrongKindError),
        (header_only, ArchiveError),
        (shortened, ArchiveTruncatedError),
        (lengthened, ArchiveDamagedError),
        (lambda path: destroy_page(path, 5), ArchiveDamagedError),
        (lambda path: destroy_page(path, 1), ArchiveWrongKindError),
    ],
    ids=["empty", "text", "header-only", "shortened", "lengthened", "page-destroyed", "no-header"],
)
async def test_what_is_no_whole_database_is_refused(
    spoil: Callable[[Path], None], error: type[ArchiveError], tmp_path: Path
) -> None:
    make_ledger(tmp_path / "ledger.db", mode="delete")
    spoil(tmp_path / "ledger.db")

    with pytest.raises(error, match=r"'ledger\.db' cannot be imported"):
        await check_database(tmp_path / "ledger.db")

    assert os.listdir(tmp_path) == ["ledger.db"]


async def test_a_database_of_another_app_is_refused(tmp_path: Path) -> None:
    make_ledger(tmp_path / "ledger.db")

    with pytest.raises(ArchiveIncompatibleError, match="monitor, heartbeat"):
        await check_database(tmp_path / "ledger.db", required_tables=["a", "monitor", "heartbeat"])


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
LONG_STEP = "instr(hex(zeroblob(4000000)), hex(zeroblob(1000000)) || 'b')"


def made(path: Path, sql: str) -> Path:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(sql)
    return path


@pytest.mark.parametrize(
    "sql",
    [f"CREATE VIEW Monitor AS {ENDLESS}", "CREATE VIRTUAL TABLE monitor USING fts5(i)"],
    ids=["view", "rows of a module"],
)
async def test_what_has_to_be_a_table_and_is_none_is_refused_without_being_read(sql: str, tmp_path: Path) -> None:
    database = made(tmp_path / "upload.db", sql)
    questions = Questions({"monitors": "SELECT count(*) FROM monitor"}, tables=["monitor"])

    with pytest.raises(ArchiveRefusedError, match="onitor is not a table in it; nothing was changed"):
        await check_database(database, questions=questions)


@pytest.mark.parametrize(
    "sql",
    [
        f"CREATE VIEW made AS {ENDLESS}",
        f"CREATE TABLE made (i); INSERT INTO made VALUES (1); ALTER TABLE made ADD COLUMN g AS ({LONG_STEP})",
    ],
    ids=["view", "one step that SQLite does not interrupt"],
)
async def test_a_query_of_an_upload_is_ended_when_its_time_is_up(
    sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LEAST_SECONDS", 0.5)
    monkeypatch.setattr(child_bounds, "_END_SECONDS", 1.5)
    database = made(tmp_path / "upload.db", sql)

    with pytest.raises(LimitExceededError, match=r"did not get through .*'upload\.db' in .* nothing was changed"):
        await check_database(
            database, questions=Questions({"all": "SELECT count(*) FROM (SELECT DISTINCT * FROM made)"})
        )


@pytest.mark.parametrize("what", ["queries", "kinds", "content"])
async def test_a_row_that_needs_more_memory_than_an_upload_may_take_is_refused(what: str, tmp_path: Path) -> None:
    large = "ALTER TABLE made ADD COLUMN g AS (hex(zeroblob(450000000)))"
    database = made(tmp_path / "upload.db", f"CREATE TABLE made (id); INSERT INTO made VALUES (1); {large}")
    questions = {
        "queries": Questions({"all": "SELECT * FROM made"}),
        "kinds": Questions(kinds={"made": Kind("made")}),
        "content": Questions(with_content=True),
    }

    with pytest.raises(LimitExceededError, match=r"A row of the database 'upload\.db' needs more memory.*nothing was"):
        await check_database(database, questions=questions[what])


async def test_a_database_is_not_called_damaged_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = made(tmp_path / "upload.db", "CREATE TABLE made (id); CREATE INDEX i ON made (id)")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.executemany("INSERT INTO made VALUES (?)", ((os.urandom(20_000),) for _ in range(2000)))
        connection.commit()
    said = []
    for jail_bytes in range(4 << 20, 64 << 20, 6 << 20):
        monkeypatch.setattr(uploads, "_CHECK_JAIL_BYTES", jail_bytes)
        try:
            await check_database(database)
        except LimitExceededError as shortage:
            said.append(shortage.text)
        else:
            break

    # How much is enough is the child's own size; up to there each attempt ends as a shortage.
    assert said
    assert all("memory" in text and "'upload.db'" in text for text in said)


async def test_a_check_that_the_kernel_kills_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = Command(["sh", "-c", "kill -KILL $$"])
    monkeypatch.setattr(uploads, "Command", lambda *_, **__: killed)
    make_ledger(tmp_path / "ledger.db", mode="delete")

    with pytest.raises(ToolFailedError, match="was killed, as the kernel does where memory is short; nothing was"):
        await check_database(tmp_path / "ledger.db")


async def test_a_check_that_is_killed_tells_no_paths_and_that_nothing_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = Command(["sh", "-c", "echo /where/it/is/installed >&2; kill -SEGV $$"])
    monkeypatch.setattr(uploads, "Command", lambda *_, **__: killed)
    make_ledger(tmp_path / "ledger.db", mode="delete")

    with pytest.raises(ArchiveDamagedError, match="nothing was changed") as caught:
        await check_database(tmp_path / "ledger.db")

    assert "/" not in caught.value.text


def test_answers_are_lines_of_json(tmp_path: Path) -> None:
    with opened_directory(tmp_path) as directory:
        done = subprocess.run(
            argv_of_module(TOOL, "agent.engines.sqlite.child", ["ask", str(directory), str(tmp_path)]),
            input=json.dumps({"live": "none.db", "busy_seconds": 1}).encode() + b"\n",
            pass_fds=(directory,),
            capture_output=True,
            check=True,
        )

    assert json.loads(done.stdout)["failed"] == "refused"


@pytest.mark.parametrize("mode", ["delete", "wal"])
async def test_a_database_whose_journal_names_another_file_is_not_opened_and_that_file_stays(
    mode: str, volume: Path, work: Path, tmp_path: Path
) -> None:
    database, other = volume / "a.db", tmp_path / "not of the app"
    other.write_bytes(b"kept")
    make_unfinished(database, mode=mode, super_journal=other)
    (volume / "link.db").symlink_to("a.db")
    before = {path.name: path.read_bytes() for path in volume.iterdir()}

    async with snapshots_of(volume, work) as snapshots:
        with pytest.raises(SourceUnreadableError, match="names another file, which SQLite would delete") as refused:
            await taken(snapshots, database)
    for name in ("a.db", "link.db"):
        with pytest.raises(SourceUnreadableError, match="names another file"):
            await ask_database(volume, name, Questions(queries={"rows": "SELECT count(*) FROM t"}))
    with pytest.raises(ArchiveDamagedError, match="names another file"):
        await uploads.absorb_changes(database)

    assert "Start the app" in refused.value.next_step
    assert other.read_bytes() == b"kept"
    assert {path.name: path.read_bytes() for path in volume.iterdir()} == before


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """As while somebody writes: nobody else even reads."""
    with database.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 512, _LOCKS_AT)
        yield


async def test_an_app_that_puts_such_a_journal_there_while_a_copy_waits_has_nothing_elsewhere_deleted(
    volume: Path, work: Path, tmp_path: Path
) -> None:
    database, journal, other = volume / "a.db", volume / "a.db-journal", tmp_path / "not of the app"
    other.write_bytes(b"kept")
    make_unfinished(database, super_journal=other)
    journal.rename(volume / "later")

    async with snapshots_of(volume, work) as snapshots:
        with locked(database):
            taking = asyncio.create_task(taken(snapshots, database))
            await until(lambda: any(file.mode == "r+" for child in agent_children() for file in child.open_files()))
            (volume / "later").rename(journal)
        await asyncio.wait([taking])

    assert not journal.exists(), "SQLite looked at it"
    assert other.read_bytes() == b"kept"


@pytest.mark.parametrize("is_copied", [True, False], ids=["copied", "asked"])
async def test_a_fifo_that_an_app_puts_beside_a_database_while_it_is_waited_for_holds_nobody_up(
    volume: Path, work: Path, is_copied: bool
) -> None:
    database = volume / "ledger.db"
    make_ledger(database, mode="delete")

    async with snapshots_of(volume, work) as snapshots:
        with locked(database):
            task: asyncio.Task[object] = asyncio.create_task(
                taken(snapshots, database)
                if is_copied
                else ask_database(volume, "ledger.db", Questions(queries={"tag": "SELECT * FROM tag"}))
            )
            await until(lambda: any(file.mode == "r+" for child in agent_children() for file in child.open_files()))
            os.mkfifo(volume / "ledger.db-journal")
        await asyncio.wait([task], timeout=20)

        assert task.done()
        with pytest.raises(SourceUnreadableError, match=r"'ledger\.db-journal' beside it is no file") as refused:
            await task
        assert "Remove it" in refused.value.next_step


async def test_a_fifo_beside_a_database_is_named(volume: Path, work: Path) -> None:
    database = volume / "ledger.db"
    make_ledger(database, mode="delete")
    os.mkfifo(volume / "ledger.db-journal")

    async with snapshots_of(volume, work) as snapshots:
        with pytest.raises(SourceUnreadableError, match=r"'ledger\.db-journal' beside it is no file") as refused:
            await taken(snapshots, database)

    assert "Remove it" in refused.value.next_step


async def test_an_app_that_puts_another_directory_in_place_of_the_copies_has_nothing_elsewhere_written(
    volume: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, other = volume / "ledger.db", tmp_path / "not of the app.db"
    make_ledger(database, mode="delete")
    other.write_bytes(b"")
    ask = snapshot_module.ask

    async def asked(child: Child, **request: str) -> dict[str, object]:
        (volume / ".mathison-data").rename(volume / "aside")
        copies = volume / ".mathison-data" / "snapshots"
        copies.mkdir(parents=True)
        (copies / Path(request["target"]).name).symlink_to(other)
        return await ask(child, **request)

    monkeypatch.setattr(snapshot_module, "ask", asked)
    async with snapshots_of(volume, work) as snapshots:
        with contextlib.suppress(SourceUnreadableError):
            await taken(snapshots, database)

    assert other.read_bytes() == b""


async def test_a_transaction_of_one_database_that_was_not_finished_is_taken_back(volume: Path, work: Path) -> None:
    make_unfinished(volume / "a.db")

    answers = await ask_database(volume, "a.db", Questions(queries={"rows": "SELECT DISTINCT substr(a, 1, 6) FROM t"}))

    assert answers.rows == {"rows": [["before"]]}


async def test_the_name_in_a_journal_that_is_done_with_is_nothing(volume: Path, tmp_path: Path) -> None:
    make_unfinished(volume / "a.db", super_journal=tmp_path / "other")
    with (volume / "a.db-journal").open("r+b") as journal:
        journal.write(bytes(28))

    answers = await ask_database(volume, "a.db", Questions(queries={"rows": "SELECT count(*) FROM sqlite_schema"}))

    assert answers.rows == {"rows": [[1]]}
