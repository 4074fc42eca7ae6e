"""What is cut, damaged or interrupted never counts as loaded, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gzip
import io
import random
import signal
import tarfile
from collections.abc import AsyncIterator, Callable

import pytest

from agent.limits import Limits
from common.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveIncompatibleError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    NoSpaceError,
    ServiceError,
    ToolFailedError,
    UploadIncompleteError,
)
from common.headers import ArchiveHeader
from common.seals import SqlSealWriter
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.loading.conftest import MakeSource, MakeTarget, RichSource
from tests.integration.agent.engines.pg.loading.targets import (
    CLOSING,
    OPENING,
    Source,
    Target,
    children_of_load,
    pieces,
    until,
)

CUTS = [0.001, 0.4, 0.9]


@pytest.fixture
def small_source(make_source: MakeSource) -> Source:
    """Few objects, so that many loads of it are quick."""
    source = make_source(17)
    source.run("CREATE TABLE a AS SELECT n, md5(n::text) AS text FROM generate_series(1, 3000) AS n")
    source.run("CREATE TABLE b AS SELECT n FROM generate_series(1, 10) AS n; SELECT lo_from_bytea(900001, 'large')")
    return source


@variants("form", ["plain", "custom", "tar", "directory"], kept=["plain", "directory"])
async def test_a_dump_cut_anywhere_is_truncated(form: str, small_source: Source, target: Target) -> None:
    dump = small_source.dump(form)
    needed = len(dump)
    if form == "plain":
        needed = dump.rindex(b" complete") + 9
    elif form == "directory":
        # tar fills its last 10 KiB up with empty blocks, of which two are needed.
        needed = -(-len(dump.rstrip(b"\0")) // 512) * 512 + 1024
    ends = [*(int(needed * share) for share in CUTS), needed - 1]

    for end in ends:
        with pytest.raises(ArchiveError) as refused:
            await target.load(dump[:end])

        assert refused.value.reason in ("ARCHIVE_TRUNCATED", "ARCHIVE_WRONG_KIND"), (end, refused.value.text)
        if end > 2000:
            assert isinstance(refused.value, ArchiveTruncatedError)
        assert target.left_over() == []
        target.run("DROP TABLE IF EXISTS a, b; SELECT lo_unlink(oid) FROM pg_largeobject_metadata")


async def test_a_cut_plain_dump_says_which_line_is_missing(small_source: Source, target: Target) -> None:
    dump = small_source.dump()

    with pytest.raises(ArchiveTruncatedError, match="its last line 'PostgreSQL database dump complete' is missing"):
        await target.load(dump[: len(dump) // 2])


async def test_a_cut_custom_archive_says_where_and_what_is_missing(rich_source: RichSource, target: Target) -> None:
    dump = rich_source(17).dump("custom")

    with pytest.raises(ArchiveTruncatedError, match=rf"cut off at byte {len(dump) - 100}"):
        await target.load(dump[:-100])


async def test_flipped_bits_in_an_archives_data_are_noticed(small_source: Source, target: Target) -> None:
    dump = small_source.dump("custom")
    content = await small_source.fingerprint()
    chance = random.Random(5)
    data_begins_at = len(dump) // 2
    noticed = 0

    for _ in range(8):
        place = chance.randrange(data_begins_at, len(dump))
        damaged = bytearray(dump)
        damaged[place] ^= 1 << chance.randrange(8)
        try:
            await target.load(bytes(damaged))
        except ArchiveError:
            noticed += 1
        else:
            assert content.differences(await target.fingerprint()) == [], place
        assert target.left_over() == []
        target.run("DROP TABLE IF EXISTS a, b; SELECT lo_unlink(oid) FROM pg_largeobject_metadata")

    assert noticed >= 6


async def test_a_damaged_file_in_a_directory_dump_is_noticed(small_source: Source, target: Target) -> None:
    file = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(small_source.dump("directory"))) as old,
        tarfile.open(fileobj=file, mode="w") as new,
    ):
        for member in old.getmembers():
            content = opened.read() if (opened := old.extractfile(member)) else b""
            if member.name.endswith(".dat.gz") and len(content) > 1000:
                content = content[:500]
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))

    with pytest.raises(ArchiveDamagedError, match="pg_restore"):
        await target.load(file.getvalue())

    assert target.left_over() == []


async def test_a_directory_dump_without_one_of_its_files_is_truncated(small_source: Source, target: Target) -> None:
    file = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(small_source.dump("directory"))) as old,
        tarfile.open(fileobj=file, mode="w") as new,
    ):
        for member in old.getmembers():
            if not member.name.endswith(".dat.gz"):
                new.addfile(member, old.extractfile(member))

    with pytest.raises(ArchiveTruncatedError, match="lacks 2 of its files"):
        await target.load(file.getvalue())


async def test_a_compression_that_the_agents_pg_restore_lacks_is_named(
    small_source: Source, make_target: MakeTarget
) -> None:
    target = make_target(18)
    dump = bytearray(small_source.dump("custom"))
    assert dump[11] == 1, "the byte of the compression"
    dump[11] = 3

    with pytest.raises(ArchiveIncompatibleError, match=r"(?i)zstd"):
        await target.load(bytes(dump))


async def test_rows_that_do_not_fit_name_their_line(target: Target) -> None:
    text = "CREATE TABLE t (a int);\n--\n-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: -\n--\n\n"
    rows = "".join(f"{n}\n" for n in range(200_000))

    with pytest.raises(ArchiveDamagedError, match='Line 10 of the dump: invalid input syntax for type integer: "x"'):
        await target.load_sql(text + "COPY t (a) FROM stdin;\n" + rows + "x\n" + rows + "\\.\n")

    assert target.left_over() == []
    await until(lambda: target.sessions() == 0)


async def test_a_constraint_that_rows_do_not_meet_names_it(target: Target) -> None:
    with pytest.raises(ArchiveDamagedError, match="could not create unique index"):
        await target.load_sql(
            "CREATE TABLE t (a int);\nCOPY t FROM stdin;\n1\n1\n\\.\n"
            "--\n-- Name: t p; Type: CONSTRAINT; Schema: public; Owner: -\n--\n\nALTER TABLE t ADD PRIMARY KEY (a);\n"
        )


async def test_a_dump_of_rows_alone_is_told_so(small_source: Source, target: Target) -> None:
    with pytest.raises(ArchiveIncompatibleError, match="rows but no tables"):
        await target.load(small_source.dump("plain", "--data-only"))


async def test_a_dump_that_switches_constraints_off_is_told_so(target: Target) -> None:
    with pytest.raises(ArchiveError, match="--disable-triggers"):
        await target.load_sql(
            "CREATE TABLE t (a int PRIMARY KEY, b int REFERENCES t);\nALTER TABLE t DISABLE TRIGGER ALL;\n"
        )


async def test_a_dump_made_with_create_is_told_so(small_source: Source, target: Target) -> None:
    with pytest.raises(ArchiveError, match="--create") as refused:
        await target.load(small_source.dump("plain", "--create"))

    assert "Dump without --create" in refused.value.next_step


async def test_a_policy_for_a_role_that_is_not_there_is_told_so(target: Target) -> None:
    with pytest.raises(ArchiveIncompatibleError, match="a role that this server does not have"):
        await target.load_sql("CREATE TABLE t (a int);\nCREATE POLICY p ON t TO nobody_there USING (true);\n")


async def test_an_extension_that_only_an_administrator_creates_is_named(target: Target) -> None:
    with pytest.raises(ArchiveIncompatibleError, match="needs the extension pg_stat_statements"):
        await target.load_sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements WITH SCHEMA public;\n")


async def test_an_extension_that_is_there_already_is_left_alone(target: Target) -> None:
    target.run("CREATE EXTENSION pg_stat_statements")

    loaded = await target.load(
        OPENING
        + b'CREATE EXTENSION IF NOT EXISTS "pg_stat_statements" WITH SCHEMA public;\n'
        + b"COMMENT ON EXTENSION pg_stat_statements IS 'x';\n"
        + CLOSING,
        extensions=frozenset({"pg_stat_statements"}),
    )

    assert loaded.extensions.keys() == {"pg_stat_statements"}


def _sealed(text: bytes, *, recipe: str = "postgresql", format_version: int = 1) -> bytes:
    seal = SqlSealWriter()
    opening = seal.opening(ArchiveHeader(recipe=recipe, format_version=format_version, app_id="shop.db"))
    seal.add(text)
    return opening + text + seal.closing()


async def test_an_archive_of_ours_brings_its_header(small_source: Source, target: Target) -> None:
    loaded = await target.load(gzip.compress(_sealed(small_source.dump())))

    assert loaded.header is not None
    assert loaded.header.app_id == "shop.db"
    assert loaded.layers == ("gzip",)


async def test_an_archive_of_another_recipe_or_of_a_later_version_is_not_taken(
    small_source: Source, target: Target
) -> None:
    dump = small_source.dump()

    with pytest.raises(ArchiveWrongKindError, match="an export of recipe 'redis'"):
        await target.load(_sealed(dump, recipe="redis"))
    with pytest.raises(ArchiveIncompatibleError, match="of format version 2"):
        await target.load(_sealed(dump, format_version=2))

    assert target.left_over() == []


async def test_one_changed_letter_in_an_archive_of_ours_is_noticed(small_source: Source, target: Target) -> None:
    archive = _sealed(small_source.dump())
    changed = archive.replace(b"c4ca4238a0b923820dcc509a6f75849b", b"c4ca4238a0b923820dcc509a6f75849c")
    assert changed != archive

    with pytest.raises(ArchiveDamagedError, match="SHA-256"):
        await target.load(changed)

    assert target.left_over() == []


@pytest.mark.parametrize("form", ["plain", "custom", "tar", "directory"])
async def test_an_upload_that_breaks_off_says_so_and_not_what_was_in_it(
    form: str, small_source: Source, target: Target
) -> None:
    dump = small_source.dump(form)

    async def broken() -> AsyncIterator[bytes]:
        async for piece in pieces(dump[: len(dump) - 10], 10_000):
            yield piece
        raise UploadIncompleteError("the connection broke")

    with pytest.raises(UploadIncompleteError):
        await target.load(broken())

    assert target.left_over() == []
    await until(lambda: target.sessions() == 0)


def _kill(name: str) -> Callable[[], None]:
    def kill() -> None:
        for child in children_of_load():
            if any(name in part for part in child.cmdline()):
                child.send_signal(signal.SIGKILL)
                return
        raise AssertionError(f"no process of {name}")

    return kill


async def test_a_killed_loader_is_an_error_and_leaves_nothing(small_source: Source, target: Target) -> None:
    dump = small_source.dump()

    async def upload() -> AsyncIterator[bytes]:
        yield dump[: len(dump) // 2]
        await until(lambda: target.sessions() > 0)
        _kill("loader_child")()
        yield dump[len(dump) // 2 :]

    with pytest.raises(ToolFailedError, match="SIGKILL"):
        await target.load(upload())

    assert target.left_over() == []
    await until(lambda: target.sessions() == 0)


async def test_a_killed_pg_restore_is_an_error_and_leaves_nothing(make_source: MakeSource, target: Target) -> None:
    source = make_source(17)
    source.run("CREATE TABLE t AS SELECT n, repeat(md5(n::text), 30) AS text FROM generate_series(1, 60000) AS n")
    dump = source.dump("custom")

    def when_loading(sentence: str) -> None:
        if sentence.startswith("loading rows"):
            _kill("pg_restore")()

    target.progress.note = when_loading  # type: ignore[method-assign]

    with pytest.raises(ServiceError, match="SIGKILL"):
        await target.load(dump)

    assert target.left_over() == []
    await until(lambda: target.sessions() == 0)


async def test_a_server_that_ends_the_sessions_is_unavailable(small_source: Source, target: Target) -> None:
    dump = small_source.dump()

    async def upload() -> AsyncIterator[bytes]:
        yield dump[: len(dump) // 2]
        await until(lambda: target.sessions() > 0)
        target.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{target.name}'")
        await until(lambda: target.sessions() == 0)
        yield dump[len(dump) // 2 :]

    with pytest.raises(ServiceError) as failed:
        await target.load(upload())

    assert failed.value.reason == "APP_UNAVAILABLE"
    assert target.left_over() == []


async def test_a_role_that_may_not_log_in_is_unavailable_and_its_password_unsaid(
    small_source: Source, target: Target
) -> None:
    target.run(f"ALTER ROLE {target.name} NOLOGIN")

    with pytest.raises(ServiceError) as failed:
        await target.load(small_source.dump())

    assert failed.value.reason == "APP_UNAVAILABLE"
    assert str(target.login.password) not in failed.value.text


@pytest.mark.parametrize("form", ["tar", "directory"])
async def test_a_spool_without_room_is_refused_before_anything_is_loaded(
    form: str, small_source: Source, target: Target
) -> None:
    with pytest.raises(NoSpaceError, match="no room in the agent's work directory"):
        await target.load(small_source.dump(form), limits=Limits(free_bytes=1 << 60))

    assert target.progress.notes == ["reading the archive"]
    assert target.left_over() == []


async def test_a_custom_archive_needs_no_room_but_the_databases(small_source: Source, target: Target) -> None:
    loaded = await target.load(small_source.dump("custom"), limits=Limits(free_bytes=1 << 60))

    assert loaded.counts["rows"] == 3010


async def test_an_archives_damage_is_told_by_its_reader_and_not_by_what_pg_restore_misses(
    small_source: Source, target: Target
) -> None:
    dump = small_source.dump("custom")
    damaged = dump[: len(dump) // 2] + b"\xff" * 300_000

    async def upload() -> AsyncIterator[bytes]:
        yield damaged
        # The end does not come before the damage was met.
        await asyncio.Event().wait()

    with pytest.raises(ArchiveDamagedError, match=r"damaged at byte \d+: a number has no sign"):
        await target.load(upload())

    assert target.left_over() == []
    await until(lambda: target.sessions() == 0)


async def test_what_a_killed_agent_left_in_the_spool_is_removed(small_source: Source, target: Target) -> None:
    (target.spool_directory / "pg-load-left").mkdir()
    (target.spool_directory / "pg-load-left" / "1234.dat").write_text("rows")

    await target.load(small_source.dump("directory"))

    assert target.left_over() == []
