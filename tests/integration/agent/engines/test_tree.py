"""Uploads unpacked by the jailed child: what it can do, what it cannot, and what is left when it dies."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Generator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agent.archives.extractor_child import Report
from agent.engines.tar_stream import compressed, from_thread, sealed
from agent.engines.tree import Orders, StagingArea, require_room, unpack
from agent.limits import Limits
from agent.unpacking import unpacked
from common.codecs import UnpackedFile, zstd_compressor
from common.errors import (
    ArchiveError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
    NoSpaceError,
    ToolFailedError,
    UploadIncompleteError,
)
from common.frames import CHUNK_BYTES
from common.headers import FORMAT_VERSION, ArchiveHeader
from common.seals import TarSealWriter
from tests.fakes.imports import chunked
from tests.fixtures.archives import DIRECTORY, SYMLINK, Entry, entry, tar_of
from tests.fixtures.attacks import ATTACKS, LIMIT_BYTES
from tests.fixtures.children import agent_children, lives
from tests.fixtures.waiting import until

LIMITS = Limits(content_bytes=LIMIT_BYTES, entries=1000, free_bytes=1)
IS_ROOT = os.geteuid() == 0


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Holds an app's data, and is deep enough for a few steps up to be seen."""
    directory = tmp_path / "outer" / "inner" / "volume"
    directory.mkdir(parents=True)
    (directory / "present").write_text("the app's")
    return directory


@pytest.fixture
def area(volume: Path) -> StagingArea:
    made = StagingArea(volume, "0123456789ab")
    made.create()
    return made


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    (tmp_path / "work").mkdir()
    return Orders(
        recipe="volume",
        limits=LIMITS,
        owner=None,
        default_owner=(os.getuid(), os.getgid()),
        inside=Path("/srv/data"),
        work_directory=tmp_path / "work",
    )


async def unpack_upload(area: StagingArea, content: bytes, orders: Orders, *, is_zip: bool = False) -> Report:
    async with unpacked(chunked(content), limits=orders.limits, unpack_zip=False) as found:
        return await unpack(area, found.chunks, orders, is_zip=is_zip)


def own(name: str, content: bytes | None = None, **attributes: object) -> Entry:
    """A member that belongs to us."""
    return entry(name, content, **{"uid": os.getuid(), "gid": os.getgid(), **attributes})


def left_beside(volume: Path) -> list[str]:
    """What lies around the volume, and in it beside the app's data."""
    outside = [path for path in volume.parents[1].rglob("*") if volume not in (path, *path.parents)]
    return sorted([path.name for path in outside] + os.listdir(volume))


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_is_refused_and_leaves_nothing(
    name: str, area: StagingArea, volume: Path, orders: Orders
) -> None:
    content, error = ATTACKS[name]

    with pytest.raises(error):
        await unpack_upload(area, content, orders)

    area.remove()
    assert left_beside(volume) == ["inner", "present"]
    assert os.listdir(orders.work_directory) == []


async def test_an_archive_is_unpacked_beside_the_data(area: StagingArea, volume: Path, orders: Orders) -> None:
    archive = tar_of(own("d", type=DIRECTORY, mode=0o700, mtime=7), own("d/a", b"1", mode=0o600, mtime=8.5))

    report = await unpack_upload(area, archive, orders)

    assert report.extracted.files == 1
    assert report.header is None
    assert (area.new / "d" / "a").read_bytes() == b"1"
    assert (area.new / "d" / "a").stat().st_mtime_ns == 8_500_000_000
    assert (area.new / "d").stat().st_mtime == 7
    assert (volume / "present").read_text() == "the app's"


async def test_what_is_unpacked_inherits_nothing_from_the_volume(volume: Path, orders: Orders) -> None:
    volume.chmod(0o2777)
    os.setxattr(volume, "system.posix_acl_default", default_acl())
    area = StagingArea(volume, "0123456789ab")
    area.create()

    await unpack_upload(area, tar_of(own("d/a", b"1", mode=0o600), own("e", type=DIRECTORY, mode=0o700)), orders)

    assert os.listxattr(area.new / "d" / "a") == []
    assert stat.S_IMODE((area.new / "e").stat().st_mode) == 0o700


def default_acl() -> bytes:
    """Everything for user 12345, as Linux keeps it: version, then tag, permissions and id of each entry."""
    nobody = 0xFFFFFFFF
    entries = [(0x01, 7, nobody), (0x02, 7, 12345), (0x04, 7, nobody), (0x10, 7, nobody), (0x20, 0, nobody)]
    packed = b"".join(
        tag.to_bytes(2, "little") + permissions.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, permissions, who in entries
    )
    return (2).to_bytes(4, "little") + packed


async def test_root_restores_owners_and_others_count_what_they_cannot(area: StagingArea, orders: Orders) -> None:
    archive = tar_of(
        entry("d", type=DIRECTORY, uid=1234, gid=5678, mode=0o2770),
        entry("d/a", b"1", uid=1234, gid=99, mode=0o400),
        entry("d/l", type=SYMLINK, linkname="a", uid=77, gid=88),
        entry("implicit/a", b"1", uid=1, gid=2),
    )

    report = await unpack_upload(area, archive, replace(orders, default_owner=(4000, 4001)))

    owners = {
        name: (os.lstat(area.new / name).st_uid, os.lstat(area.new / name).st_gid)
        for name in ("d", "d/a", "d/l", "implicit", "implicit/a")
    }
    if not IS_ROOT:
        assert set(owners.values()) == {(os.getuid(), os.getgid())}
        assert report.extracted.owner_differs == 5  # the folder that the archive only implies, too
        return
    assert owners == {
        "d": (1234, 5678),
        "d/a": (1234, 99),
        "d/l": (77, 88),
        "implicit": (4000, 4001),
        "implicit/a": (1, 2),
    }
    assert stat.S_IMODE((area.new / "d").stat().st_mode) == 0o2770
    assert report.extracted.owner_differs == 0
    assert report.extracted.owners == ["1234:5678", "1234:99", "77:88", "1:2"]


async def test_everything_is_given_to_the_app_when_asked_by_root(area: StagingArea, orders: Orders) -> None:
    archive = tar_of(entry("d/a", b"1", uid=1234, gid=99), entry("d/l", type=SYMLINK, linkname="a", uid=77))

    await unpack_upload(area, archive, replace(orders, owner=(4000, 4001)))

    expected = (4000, 4001) if IS_ROOT else (os.getuid(), os.getgid())
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in area.new.rglob("*")} == {expected}


async def test_the_child_is_nobody_in_particular_with_no_rights_but_what_it_needs(
    area: StagingArea, orders: Orders
) -> None:
    async with WaitingChild(area, orders) as child:
        status = Path(f"/proc/{child.pid}/status").read_text()
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

        assert facts["Uid"].split() == [str(65534 if IS_ROOT else os.getuid())] * 4
        # Root's: CHOWN, DAC_OVERRIDE, FOWNER, FSETID and no other.
        assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == (0b11011 if IS_ROOT else 0)
        assert facts["NoNewPrivs"] == "1"
        if IS_ROOT:
            assert os.readlink(f"/proc/{child.pid}/root") == str(area.new)


NEEDS_A_SMALL_DISK = pytest.mark.skipif(not IS_ROOT, reason="only root can mount a small disk")


@NEEDS_A_SMALL_DISK
async def test_a_full_disk_is_noticed_and_leaves_nothing(tmp_path: Path, orders: Orders) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", mount], check=True)
    try:
        (mount / "present").write_text("the app's")
        area = StagingArea(mount, "0123456789ab")
        area.create()

        with pytest.raises(NoSpaceError):
            await unpack_upload(area, tar_of(entry("a", os.urandom(12 << 20))), orders)

        area.remove()
        assert os.listdir(mount) == ["present"]
    finally:
        subprocess.run(["umount", mount], check=True)


@NEEDS_A_SMALL_DISK
async def test_a_disk_without_inodes_is_noticed(tmp_path: Path, orders: Orders) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=50", "none", mount], check=True)
    try:
        area = StagingArea(mount, "0123456789ab")
        area.create()

        with pytest.raises(NoSpaceError):
            await unpack_upload(area, tar_of(*[entry(str(number), b"") for number in range(100)]), orders)

        area.remove()
    finally:
        subprocess.run(["umount", mount], check=True)


async def test_other_owners_are_given_by_root_and_counted_by_others(area: StagingArea, orders: Orders) -> None:
    archive = tar_of(entry("a", b"1", uid=12345, gid=os.getgid()), own("b", b"1"))

    report = await unpack_upload(area, archive, orders)

    assert (area.new / "a").stat().st_uid == (12345 if IS_ROOT else os.getuid())
    assert report.extracted.owner_differs == (0 if IS_ROOT else 1)


async def test_too_little_room_is_noticed_while_unpacking(area: StagingArea, orders: Orders) -> None:
    limits = replace(LIMITS, free_bytes=1 << 60)

    with pytest.raises(NoSpaceError):
        await unpack_upload(area, tar_of(own("a", b"x" * 100)), replace(orders, limits=limits))


def test_too_little_room_is_noticed_before_unpacking(volume: Path) -> None:
    with pytest.raises(NoSpaceError, match="needs 1152921504606846976 beside"):
        require_room(volume, 1 << 60, LIMITS)


async def test_a_file_larger_than_the_limit_cannot_even_be_reserved(area: StagingArea, orders: Orders) -> None:
    with pytest.raises(LimitExceededError):
        await unpack_upload(area, ATTACKS["sparse-bomb"][0], orders)


class WaitingChild:
    """An extraction whose upload stops in the middle, and its child."""

    def __init__(self, area: StagingArea, orders: Orders) -> None:
        self._area, self._orders = area, orders
        self._gate = asyncio.Event()
        self.failure: BaseException | None = None

    async def __aenter__(self) -> psutil.Process:
        self._task = asyncio.create_task(unpack(self._area, self._halting(), self._orders, is_zip=False))

        def has_begun() -> bool:
            return (self._area.new / "d").exists() and bool(agent_children())

        await until(has_begun)
        return agent_children()[0]

    async def __aexit__(self, *error: object) -> None:
        self._gate.set()
        (outcome,) = await asyncio.gather(self._task, return_exceptions=True)
        self.failure = outcome if isinstance(outcome, BaseException) else None

    def cancel(self) -> None:
        self._task.cancel()

    async def _halting(self) -> AsyncIterator[bytes]:
        content = tar_of(own("d/a", b"x" * (3 << 20)), own("d/b", b"y" * (3 << 20)))
        yield content[: 4 << 20]
        await self._gate.wait()
        yield content[4 << 20 :]


async def test_a_killed_child_is_an_error_and_leaves_nothing(area: StagingArea, volume: Path, orders: Orders) -> None:
    halted = WaitingChild(area, orders)
    async with halted as child:
        child.kill()

    assert isinstance(halted.failure, ToolFailedError)
    assert "SIGKILL" in halted.failure.text
    area.remove()
    assert left_beside(volume) == ["inner", "present"]
    assert os.listdir(orders.work_directory) == []


async def test_the_child_ends_with_its_agent(area: StagingArea, volume: Path, tmp_path: Path) -> None:
    program = f"""
import asyncio, os
from pathlib import Path
from agent.engines.tree import *
from agent.limits import Limits
async def halting():
    yield Path({str(tmp_path / "part")!r}).read_bytes()
    await asyncio.sleep(1000)
area = StagingArea(Path({str(volume)!r}), "0123456789ab")
owner = (os.getuid(), os.getgid())
orders = Orders("volume", Limits(free_bytes=1), None, owner, Path("/srv"), Path({str(tmp_path)!r}))
asyncio.run(unpack(area, halting(), orders, is_zip=False))
"""
    (tmp_path / "part").write_bytes(tar_of(own("d/a", b"x" * (3 << 20)))[: 2 << 20])
    agent = subprocess.Popen([sys.executable, "-c", program])
    try:
        await until(lambda: (area.new / "d").exists())
        child = agent_children(psutil.Process(agent.pid))[0]

        os.kill(agent.pid, signal.SIGKILL)

        agent.wait()
        await until(lambda: not lives(child))
    finally:
        agent.kill()
        agent.wait()


async def test_an_upload_that_stops_ends_the_child_and_says_why(area: StagingArea, orders: Orders) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield tar_of(own("d/a", b"x" * (3 << 20)))[: 2 << 20]
        raise UploadIncompleteError("the caller went away")

    with pytest.raises(UploadIncompleteError):
        await unpack(area, cut(), orders, is_zip=False)

    assert agent_children() == []


async def test_cancelling_ends_the_child(area: StagingArea, orders: Orders) -> None:
    halted = WaitingChild(area, orders)
    async with halted:
        halted.cancel()

    assert isinstance(halted.failure, asyncio.CancelledError)
    assert agent_children() == []


def sealed_tar(*entries: Entry, header: ArchiveHeader | None = None) -> bytes:
    seal = TarSealWriter()
    opening = seal.opening(header or ArchiveHeader(recipe="volume", format_version=FORMAT_VERSION))
    body = tar_of(*entries).rstrip(b"\0")
    body += bytes(-len(body) % 512)
    seal.add(body)
    return opening + body + seal.closing()


async def test_the_seal_of_an_own_archive_is_checked(area: StagingArea, orders: Orders) -> None:
    header = ArchiveHeader(recipe="volume", format_version=FORMAT_VERSION, app_id="shop.files", counts={"files": 1})
    archive = sealed_tar(own("a", b"content " * 200), header=header)

    report = await unpack_upload(area, archive, orders)

    assert report.header == header
    assert report.extracted.left_out == 0
    assert os.listdir(area.new) == ["a"]


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (ArchiveHeader(recipe="minio", format_version=1), ArchiveWrongKindError),
        (ArchiveHeader(recipe="volume", format_version=FORMAT_VERSION + 1), ArchiveError),
    ],
    ids=["another-recipe", "newer-format"],
)
async def test_an_archive_of_ours_that_does_not_fit_is_refused(
    header: ArchiveHeader, error: type[ArchiveError], area: StagingArea, orders: Orders
) -> None:
    with pytest.raises(error):
        await unpack_upload(area, sealed_tar(own("a", b"1"), header=header), orders)


async def test_an_own_archive_that_will_not_fit_is_refused_at_its_beginning(area: StagingArea, orders: Orders) -> None:
    header = ArchiveHeader(recipe="volume", format_version=FORMAT_VERSION, counts={"bytes": 1 << 60})

    with pytest.raises(NoSpaceError):
        await unpack_upload(area, sealed_tar(own("a", b"1"), header=header), orders)

    assert os.listdir(area.new) == []


async def test_a_flipped_bit_in_an_own_archive_is_found(area: StagingArea, orders: Orders) -> None:
    archive = bytearray(sealed_tar(own("a", b"content " * 200)))
    archive[archive.find(b"content") + 100] ^= 1

    with pytest.raises(ArchiveError, match="SHA-256"):
        await unpack_upload(area, bytes(archive), orders)


async def test_an_own_archive_without_its_last_member_is_cut_off(area: StagingArea, orders: Orders) -> None:
    archive = sealed_tar(own("a", b"content " * 200))

    with pytest.raises(ArchiveTruncatedError):
        await unpack_upload(area, archive[:-2048] + bytes(1024), orders)


async def test_a_zip_is_unpacked_for_the_volumes_owner(area: StagingArea, orders: Orders) -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d/a", b"content")
        link = zipfile.ZipInfo("d/l")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "a")
        archive.writestr("größe", b"x" * 100_000)

    report = await unpack_upload(area, written.getvalue(), orders, is_zip=True)

    assert report.extracted.files == 2
    assert (area.new / "d" / "l").read_bytes() == b"content"
    assert (area.new / "größe").stat().st_uid == os.getuid()
    assert sorted(os.listdir(area.new.parent)) == ["new", "old"]


@pytest.mark.parametrize("name", ["../pwned", "/etc/pwned", "a/../../pwned"])
async def test_a_zip_cannot_get_out(name: str, area: StagingArea, volume: Path, orders: Orders) -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr(name, b"x")

    with pytest.raises(ArchiveError):
        await unpack_upload(area, written.getvalue(), orders, is_zip=True)

    area.remove()
    assert left_beside(volume) == ["inner", "present"]


async def test_a_generator_in_a_thread_is_ended_with_its_reader() -> None:
    ended = []

    def endless() -> Generator[bytes, None, None]:
        try:
            while True:
                yield b"x" * CHUNK_BYTES
        finally:
            ended.append(True)

    chunks = from_thread(endless(), name="test")
    assert await anext(chunks) == b"x" * CHUNK_BYTES

    await chunks.aclose()

    assert ended == [True]


async def test_sealed_and_compressed_blocks_come_out_whole() -> None:
    content = [os.urandom(1 << 20) for _ in range(5)]
    header = ArchiveHeader(recipe="volume", format_version=FORMAT_VERSION)

    blocks = compressed(sealed((block for block in content), header), zstd_compressor())
    chunks = [chunk async for chunk in from_thread(blocks, name="test")]

    unpacked_again = UnpackedFile(io.BytesIO(b"".join(chunks)))
    assert b"".join(content) in b"".join(iter(lambda: unpacked_again.read(1 << 20), b""))
    assert max(map(len, chunks)) <= 2 << 20


async def test_small_pieces_are_gathered_for_the_way_out() -> None:
    pieces = [os.urandom(100_000) for _ in range(50)]

    chunks = [chunk async for chunk in from_thread((piece for piece in pieces), name="test")]

    assert b"".join(chunks) == b"".join(pieces)
    assert min(map(len, chunks[:-1])) > CHUNK_BYTES * 9 // 10
    assert max(map(len, chunks)) < CHUNK_BYTES + 100_000
