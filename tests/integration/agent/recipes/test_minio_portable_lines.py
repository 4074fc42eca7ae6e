"""What `verify` says of a portable archive and what an import takes are one reading of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.engines.replay.minio import replay
from agent.engines.replay.request import Request
from cli.exit_codes import ExitCode
from common.errors import ArchiveDamagedError, ArchiveError, ArchiveRefusedError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_archives import Change, resealed
from tests.fixtures.variants import variants
from tests.fixtures.verifying import verify
from tests.integration.agent.recipes.minio_apps import MinioApp
from tests.integration.agent.recipes.minio_shared import Source, Target, shared_target, source, target

__all__ = ["shared_target", "source", "target"]

_EMPTY = "metadata/empty.jsonl"
_VERSIONS = "metadata/versions.jsonl"


def _in(file: str, change: Callable[[bytes], bytes | None]) -> Change:
    return lambda name, content: change(content) if name == file else content


UNREADABLE: dict[str, tuple[Change, str]] = {
    "junk without a line's end": (_in(_EMPTY, lambda content: b"x"), "line 1 of metadata/empty.jsonl cannot be read"),
    "an empty line": (_in(_EMPTY, lambda content: b"\n"), "line 1 of metadata/empty.jsonl cannot be read"),
    "a line that was cut": (
        _in(_VERSIONS, lambda content: content[:-20]),
        "line 6 of metadata/versions.jsonl cannot be read",
    ),
    "no JSON": (
        _in(_VERSIONS, lambda content: content.replace(b'"key"', b'"key', 1)),
        "line 1 of metadata/versions.jsonl cannot be read",
    ),
    "no text": (_in(_VERSIONS, lambda content: b"\xff" + content), "line 1 of metadata/versions.jsonl cannot be read"),
    "other JSON": (_in(_EMPTY, lambda content: b"[]"), "line 1 of metadata/empty.jsonl cannot be read"),
    "JSON without an end to its depth": (
        _in(_EMPTY, lambda content: b'{"x":' + b"[" * 100_000),
        "line 1 of metadata/empty.jsonl cannot be read",
    ),
    "a line of two mebibytes": (
        _in(_EMPTY, lambda content: b'{"key":"' + b"k" * (2 << 20) + b'"}'),
        "line 1 of metadata/empty.jsonl cannot be read",
    ),
    "content in another bucket": (
        _in(_VERSIONS, lambda content: content.replace(b"versions/versions/", b"versions/plain/", 1)),
        "has no place of its content",
    ),
    "no lines of a bucket": (_in(_EMPTY, lambda content: None), "metadata/empty.jsonl is missing"),
}


@variants("what", UNREADABLE, every=3)
async def test_what_an_import_refuses_to_read_verify_does_too(
    what: str, source: Source, target: Target, tmp_path: Path
) -> None:
    change, words = UNREADABLE[what]
    file = resealed(source.objects.file, change)

    assert words in await _refused_by_both(file, ArchiveDamagedError, target.app, tmp_path)


async def test_lines_without_a_bucket_are_refused_by_both(source: Source, target: Target, tmp_path: Path) -> None:
    file = resealed(source.objects.file, lambda name, content: content, added={"metadata/other.jsonl": b""})

    assert "no such bucket" in await _refused_by_both(file, ArchiveDamagedError, target.app, tmp_path)


async def test_lines_that_are_there_twice_are_refused_by_both(source: Source, target: Target, tmp_path: Path) -> None:
    file = resealed(source.objects.file, lambda name, content: content, added={_EMPTY: b""})

    assert "twice" in await _refused_by_both(file, ArchiveRefusedError, target.app, tmp_path)


async def test_verify_tells_a_person_the_file_and_the_line(source: Source, tmp_path: Path) -> None:
    change, words = UNREADABLE["no JSON"]
    (tmp_path / "archive.tar").write_bytes(resealed(source.objects.file, change))

    exit_code, said = verify(tmp_path / "archive.tar")

    assert exit_code == ExitCode.ARCHIVE
    assert words in " ".join(said.split())
    assert "Traceback" not in said


async def test_a_last_line_without_its_end_is_read_by_both(source: Source, target: Target, tmp_path: Path) -> None:
    app = target.app
    file = resealed(source.objects.file, _in(_VERSIONS, lambda content: content.removesuffix(b"\n")))
    (tmp_path / "archive.tar").write_bytes(file)

    found = await replay(Request(file=str(tmp_path / "archive.tar"), scheme="minio-s3/3"))
    record, preview = await app.stage(file, None, bucket="versions")
    await app.recipe.discard(record)

    assert found.fingerprint == source.objects.fingerprint
    assert preview.counts_after["versions"] == 6


async def _refused_by_both(file: bytes, error: type[ArchiveError], app: MinioApp, directory: Path) -> str:
    """What `verify` says; the import says the same."""
    (directory / "archive.tar").write_bytes(file)
    record = MemoryRecord()

    with pytest.raises(error) as by_verify:
        await replay(Request(file=str(directory / "archive.tar"), scheme="minio-s3/3"))
    with pytest.raises(error) as by_import:
        await app.stage(file, record, bucket="versions")

    await app.recipe.discard(record)
    assert by_import.value.text == by_verify.value.text
    return by_verify.value.text
