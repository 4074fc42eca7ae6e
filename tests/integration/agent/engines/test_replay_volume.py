"""`mathison verify` of a volume's archive takes what an import takes, and refuses what one refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.engines.replay.request import Request
from agent.engines.replay.volume import replay
from common.errors import ArchiveIncompatibleError, ArchiveRefusedError, ArchiveWrongKindError, ServiceError
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from common.seals import TarSealWriter
from tests.fakes.imports import MemoryRecord
from tests.fixtures.archives import DIRECTORY, FIFO, HARD_LINK, SYMLINK, Entry, entry, tar_of
from tests.integration.agent.recipes.conftest import Volume

_END = 1024


def sealed(*entries: Entry, recipe: str = "volume", format_version: int = 1) -> bytes:
    """An archive with a seal that holds, whatever is in it."""
    body = b"".join(_members(one) for one in entries)
    seal = TarSealWriter()
    opening = seal.opening(ArchiveHeader(recipe=recipe, format="tar", format_version=format_version))
    seal.add(body)
    return opening + body + seal.closing()


def _members(one: Entry) -> bytes:
    _, content = one
    blocks = 1 + -(-len(content or b"") // 512)
    return tar_of(one)[: blocks * 512]


async def replayed(folder: Path, archive: bytes) -> Fingerprint:
    file = folder / "archive.tar"
    await asyncio.to_thread(file.write_bytes, archive)
    return (await replay(Request(file=str(file), scheme="volume/2"))).fingerprint


NOTE = entry("note", b"text")
REFUSED: dict[str, tuple[bytes, type[ServiceError]]] = {
    "a hard link before its target": (
        sealed(entry("link", type=HARD_LINK, linkname="note"), NOTE),
        ArchiveRefusedError,
    ),
    "an export of another recipe": (sealed(NOTE, recipe="n8n"), ArchiveWrongKindError),
    "an export of a newer format": (sealed(NOTE, format_version=2), ArchiveIncompatibleError),
    "a path that leads out": (sealed(entry("a/../../b", b"")), ArchiveRefusedError),
    "a path through a link": (
        sealed(entry("a", type=SYMLINK, linkname="."), entry("a/b", b"text")),
        ArchiveRefusedError,
    ),
    "a file twice": (sealed(NOTE, NOTE), ArchiveRefusedError),
    "a fifo": (sealed(entry("fifo", type=FIFO)), ArchiveRefusedError),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_an_import_refuses_is_not_proven(what: str, tmp_path: Path) -> None:
    archive, reason = REFUSED[what]
    with pytest.raises(reason) as by_import:
        await Volume(tmp_path / "volume").stage(archive, MemoryRecord())

    with pytest.raises(reason) as by_verify:
        await replayed(tmp_path, archive)

    assert by_verify.value.text == by_import.value.text


@pytest.mark.parametrize("kept", [".mathison-data/foreign", "lost+found/piece", ".snapshot/old"])
async def test_what_an_import_leaves_out_is_no_part_of_what_is_proven(kept: str, tmp_path: Path) -> None:
    added = entry(kept, b"text")

    found = await replayed(tmp_path, sealed(NOTE, added, entry("./", type=DIRECTORY)))

    preview = await Volume(tmp_path / "volume").stage(sealed(NOTE, added), MemoryRecord())
    assert any("were left out" in warning for warning in preview.warnings)
    assert found == await replayed(tmp_path, sealed(NOTE))


async def test_a_large_sparse_file_and_odd_rights_need_no_room_to_be_proven(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume")
    (volume.directory / "closed").mkdir()
    (volume.directory / "closed" / "large").touch()
    with (volume.directory / "closed" / "large").open("r+b") as file:
        file.truncate(1 << 35)
        file.seek(1 << 34)
        file.write(b"something")
    (volume.directory / "closed" / "large").chmod(0o400)
    (volume.directory / "closed").chmod(0o500)
    exported = await volume.export()

    assert await replayed(tmp_path, exported.content) == exported.fingerprint
