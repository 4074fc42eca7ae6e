"""What is no data of an Uptime Kuma that this app can take: the reason is named and nothing is changed."""

from __future__ import annotations

import gzip
import sqlite3
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.recipes.base import Upload
from common.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    UploadIncompleteError,
)
from common.headers import ArchiveHeader
from tests.fakes.imports import MemoryRecord, NotedProgress, chunked
from tests.fixtures.archives import SYMLINK, entry, tar_of
from tests.fixtures.kuma_apps import DATA, KUMA_1, KUMA_2, KUMA_2_LIVE, KumaApp, changed_set, execute, set_of
from tests.integration.agent.recipes.conftest import NotedApp, Volume

MIGRATING = "UPDATE setting SET value = '\"migrating\"' WHERE key = 'migrateAggregateTableState'"
LOCKED = "UPDATE knex_migrations_lock SET is_locked = 1"


def database() -> bytes:
    """A whole kuma.db."""
    with tarfile.open(DATA / f"{KUMA_2}.tar.gz") as archive:
        file = archive.extractfile("kuma.db")
        assert file is not None
        return file.read()


def _other_database(directory: Path) -> bytes:
    with closing(sqlite3.connect(directory / "other.db")) as other, other:
        other.execute("CREATE TABLE ledger (id)")
    return (directory / "other.db").read_bytes()


def _without_tables(directory: Path) -> bytes:
    return changed_set(KUMA_2, lambda db: execute(db, "ALTER TABLE monitor RENAME TO monitors"), directory / "made")


def _views_for_tables(directory: Path) -> bytes:
    def change(db: Path) -> None:
        execute(db, "ALTER TABLE setting RENAME TO settings")
        execute(db, "CREATE VIEW setting AS SELECT * FROM settings")

    return changed_set(KUMA_2, change, directory / "made")


def _endless_view(directory: Path) -> bytes:
    def change(db: Path) -> None:
        execute(db, "ALTER TABLE monitor RENAME TO monitors")
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        execute(db, f"CREATE VIEW Monitor AS {numbers} SELECT i AS id, 'a' AS name, 1 AS active FROM n")

    return changed_set(KUMA_2, change, directory / "made")


def _changed(name: str, sql: str) -> Callable[[Path], bytes]:
    return lambda directory: changed_set(name, lambda db: execute(db, sql), directory / "made")


def _of_later_writers(_directory: Path) -> bytes:
    content = bytearray(database())
    content[18] = 3
    return bytes(content)


def _damaged(_directory: Path) -> bytes:
    content = bytearray(database())
    content[4096 * 20 : 4096 * 24] = bytes(4096 * 4)
    return bytes(content)


def _foreign_wal(directory: Path) -> bytes:
    """A main file from which pages are missing that its -wal does not have either."""

    def change(db: Path) -> None:
        db.write_bytes(db.read_bytes()[: 4096 * 9])

    return changed_set(KUMA_2_LIVE, change, directory / "made")


def _linked(name: str) -> Callable[[Path], bytes]:
    def make(_directory: Path) -> bytes:
        members = [entry("upload/x", content=b"x")]
        if name != "kuma.db":
            members = [entry("kuma.db", content=database())]
        return tar_of(*members, entry(name, type=SYMLINK, linkname="upload/x" if name == "kuma.db" else "kuma.db"))

    return make


def _with_link(path: str, target: str, *, kind: bytes = SYMLINK) -> Callable[[Path], bytes]:
    """A data directory whose database lies where the path's folder does, and a link."""
    around = path[: path.index("upload/")]
    return lambda _: tar_of(
        entry(f"{around}kuma.db", content=database()),
        entry(f"{around}upload/logo.png", content=b"x"),
        entry(path, type=kind, linkname=target),
    )


BAD: dict[str, tuple[Callable[[Path], bytes], type[ArchiveError], str]] = {
    "empty file": (lambda _: b"", ArchiveError, "."),
    "text": (lambda _: b"Hello, this is no archive. " * 40, ArchiveWrongKindError, "."),
    "backup in JSON": (lambda _: b'{"version": "1.23.17", "monitorList": []}', ArchiveWrongKindError, "JSON"),
    "dump of MariaDB": (
        lambda _: (DATA / "kuma-2.5.3-mariadb.sql.gz").read_bytes(),
        ArchiveWrongKindError,
        "a MariaDB dump",
    ),
    "our export of MariaDB": (
        lambda _: b'-- mathison-data archive: {"recipe":"mariadb","format":"sql"}\n-- MariaDB dump 10.19\n',
        ArchiveWrongKindError,
        "one cannot be made of the other",
    ),
    "another database": (_other_database, ArchiveWrongKindError, "lacks the tables"),
    "a table is missing": (_without_tables, ArchiveWrongKindError, "lacks the tables monitor"),
    "a trigger": (
        _changed(KUMA_2, 'CREATE TRIGGER "sly" AFTER INSERT ON heartbeat BEGIN DELETE FROM user; END'),
        ArchiveRefusedError,
        "holds the trigger 'sly', which Uptime Kuma does not make",
    ),
    "a view": (
        _changed(KUMA_2, "CREATE VIEW names AS SELECT name FROM monitor"),
        ArchiveRefusedError,
        "holds the view 'names', which",
    ),
    "a view for a table": (_views_for_tables, ArchiveRefusedError, "setting is not a table.*nothing was changed"),
    "a view without end for a table": (_endless_view, ArchiveRefusedError, "Monitor is not a table"),
    "archive without database": (
        lambda _: tar_of(entry("upload/logo.png", content=b"x")),
        ArchiveWrongKindError,
        r"no kuma\.db",
    ),
    "cut archive": (lambda _: set_of(KUMA_2)[:-4000], ArchiveTruncatedError, "."),
    "cut database": (lambda _: database()[:-4096], ArchiveTruncatedError, "bytes where its header says"),
    "damaged archive": (
        lambda _: set_of(KUMA_2)[:9000] + bytes(50) + set_of(KUMA_2)[9050:],
        ArchiveDamagedError,
        ".",
    ),
    "damaged database": (_damaged, ArchiveDamagedError, "."),
    "database that nobody could write to": (_of_later_writers, ArchiveDamagedError, "too old to write to it"),
    "main file cut below its -wal": (_foreign_wal, ArchiveError, "."),
    "half-way through its statistics": (_changed(KUMA_2, MIGRATING), ArchiveIncompatibleError, "migrating"),
    "half-way through its schema": (_changed(KUMA_2, LOCKED), ArchiveIncompatibleError, "migrating"),
    "newer": (
        _changed(KUMA_2, "INSERT INTO knex_migrations (name) VALUES ('2027-01-01-0000-new.js')"),
        ArchiveIncompatibleError,
        "newer than this app",
    ),
    "database is a link": (_linked("kuma.db"), ArchiveRefusedError, r"kuma\.db"),
    "folder is a link": (_linked("docker-tls"), ArchiveRefusedError, "docker-tls"),
    "link out": (_with_link("upload/x", "/etc/shadow"), ArchiveRefusedError, "'upload/x' -> '/etc/shadow'"),
    "link out once the folders around are gone": (
        _with_link("a/b/c/upload/x", "../../../../etc/passwd"),
        ArchiveRefusedError,
        "'upload/x' -> '../../../../etc/passwd'",
    ),
    "link to the configuration": (_with_link("upload/x", "../db-config.json"), ArchiveRefusedError, "leads out of its"),
    "link to the database": (_with_link("upload/d/x", "../../kuma.db"), ArchiveRefusedError, "leads out of its folder"),
    "link to the directory": (_with_link("upload/x", ".."), ArchiveRefusedError, "leads out of its folder"),
    "link to another folder": (_with_link("upload/x", "/data/docker-tls"), ArchiveRefusedError, "leads out"),
    "link on through a link": (_with_link("upload/x", "y/../../kuma.db"), ArchiveRefusedError, "leads out"),
    "hard link to the database": (
        _with_link("data/upload/x", "data/kuma.db", kind=tarfile.LNKTYPE),
        ArchiveRefusedError,
        "the database a second time as 'upload/x'",
    ),
    "path out": (lambda _: tar_of(entry("../kuma.db", content=database())), ArchiveRefusedError, "leaves"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_upload_is_refused_and_changes_nothing(name: str, tmp_path: Path) -> None:
    make, error, words = BAD[name]
    kuma = KumaApp(tmp_path / "kuma", NotedApp(), content=KUMA_2)
    (tmp_path / "made").mkdir()
    content, before, files = make(tmp_path), await kuma.fingerprint(), kuma.files
    record = MemoryRecord()

    with pytest.raises(error, match=words):
        await kuma.stage(content, record)
    await kuma.recipe.discard(record)

    assert (await kuma.fingerprint()).differences(before) == []
    assert kuma.files == files
    assert list(kuma.work_directory.iterdir()) == []


async def test_links_that_stay_in_their_folder_or_are_there_already_are_taken(tmp_path: Path) -> None:
    kuma = KumaApp(tmp_path / "kuma", NotedApp(), content=KUMA_2)
    links = {"upload/mine": "../../elsewhere", "upload/a": "logo.png", "upload/d/b": "../logo.png"}
    (kuma.directory / "upload" / "mine").symlink_to(links["upload/mine"])
    members = [entry(f"data/{path}", type=SYMLINK, linkname=target) for path, target in links.items()]

    await kuma.import_(
        tar_of(
            entry("data/kuma.db", content=database()),
            *members,
            entry("data/notes", type=SYMLINK, linkname="/never/imported"),
        )
    )

    assert {path: str((kuma.directory / path).readlink()) for path in links} == links
    assert not (kuma.directory / "notes").is_symlink()


async def test_an_export_with_a_link_that_leads_out_warns_of_it_and_goes_back_to_where_it_came_from(
    tmp_path: Path,
) -> None:
    kuma = KumaApp(tmp_path / "kuma", NotedApp(), content=KUMA_2)
    (kuma.directory / "upload" / "b").symlink_to("logo1.png")
    assert (await kuma.export()).warnings == []
    (kuma.directory / "upload" / "a").symlink_to("../kuma.db")

    exported = await kuma.export()

    assert exported.warnings == [
        "1 symbolic link leads out; only an app that has the same one takes the archive: 'upload/a'."
    ]
    await kuma.import_(exported.content)
    other = KumaApp(tmp_path / "other", NotedApp(), content=KUMA_2)
    with pytest.raises(ArchiveRefusedError, match="'upload/a'") as raised:
        await other.stage(exported.content, MemoryRecord())
    assert "make the same one" in raised.value.next_step
    assert "outside_links" not in raised.value.next_step


@pytest.mark.parametrize("name", ["newer generation", "newer patch"])
async def test_version_1_takes_nothing_newer(name: str, tmp_path: Path) -> None:
    kuma = KumaApp(tmp_path / "kuma", NotedApp(), content=KUMA_1)
    patched = (
        "UPDATE setting SET value = json_set(value, '$.\"patch-new.sql\"', json('true'))"
        " WHERE key = 'databasePatchedFiles'"
    )
    (tmp_path / "made").mkdir()
    content = set_of(KUMA_2) if name == "newer generation" else _changed(KUMA_1, patched)(tmp_path)
    before = await kuma.fingerprint()

    with pytest.raises(ArchiveIncompatibleError, match="this app"):
        await kuma.stage(content, MemoryRecord())

    assert (await kuma.fingerprint()).differences(before) == []


async def test_an_export_of_another_recipe_is_refused_by_name(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume")
    (volume.directory / "kuma.db").write_bytes(database())
    exported = await volume.export("tar")
    kuma = KumaApp(tmp_path / "kuma", NotedApp(), content=KUMA_2)

    with pytest.raises(ArchiveWrongKindError, match="'volume'"):
        await kuma.stage(exported.content, MemoryRecord())


@pytest.mark.parametrize("share", [0.3, 0.999])
async def test_a_cut_or_changed_export_of_ours_is_noticed(share: float, tmp_path: Path) -> None:
    kuma = KumaApp(tmp_path / "kuma", NotedApp(), content=KUMA_2)
    content = (await kuma.export("tar")).content
    at = int(len(content) * share)
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    with pytest.raises(ArchiveError):
        await kuma.stage(content[:at], MemoryRecord())
    with pytest.raises(ArchiveError):
        await kuma.stage(flipped, MemoryRecord())


async def test_an_upload_that_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    kuma = KumaApp(tmp_path / "kuma", NotedApp(), content=KUMA_2)
    before, record = kuma.files, MemoryRecord()

    async def broken_off() -> AsyncIterator[bytes]:
        async for chunk in chunked(gzip.decompress(set_of(KUMA_2))[:200_000], 10_000):
            yield chunk
        raise UploadIncompleteError("The upload broke off.")

    with pytest.raises(UploadIncompleteError):
        await kuma.recipe.stage(Upload(header=ArchiveHeader(), chunks=broken_off()), record, NotedProgress())
    await kuma.recipe.discard(record)

    assert kuma.files == before


async def test_an_export_warns_of_the_triggers_and_views_that_only_this_app_takes(tmp_path: Path) -> None:
    target = KumaApp(tmp_path / "target", NotedApp(), content=KUMA_2)
    source = KumaApp(tmp_path / "source", NotedApp(), content=KUMA_2)
    source.execute("CREATE TRIGGER sly AFTER INSERT ON heartbeat BEGIN DELETE FROM user; END")
    source.execute("CREATE VIEW names AS SELECT name FROM monitor")

    for options in ({}, {"fingerprint": "no"}):
        exported = await source.export("tar", **options)

        [warning] = exported.warnings
        assert warning.startswith("The database holds the trigger 'sly', the view 'names', which Uptime Kuma does not")
    with pytest.raises(ArchiveRefusedError, match="holds the trigger 'sly', the view 'names'"):
        await target.import_(exported.content)
    await source.import_(exported.content)
