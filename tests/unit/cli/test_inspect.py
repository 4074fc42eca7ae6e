"""`mathison inspect` on real files: whole, cut, flipped, foreign."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from cli.inspecting import Inspection, inspect
from common.codecs import zstd_compressor
from common.fingerprints import Fingerprint
from common.rdb import END_BYTES, EOF_OPCODE, crc64
from tests.fixtures.archives import zip_of_raw_names
from tests.fixtures.rdb_files import GOOD as GOOD_RDB
from tests.fixtures.rdb_files import key, rdb, string
from tests.unit.cli.archives import HEADER, plain_sql, plain_tar, sealed_sql, sealed_tar
from tests.unit.cli.conftest import Mathison

FILES = {"data/a.txt": b"a" * 700, "data/b.bin": bytes(2000), "n" * 150: b"long name"}


def look_at(path: Path) -> Inspection:
    with path.open("rb", buffering=0) as file:
        return inspect(file, path, lambda done, total: None)


@pytest.fixture
def inspected(tmp_path: Path) -> Callable[[bytes], Inspection]:
    def inspect_bytes(content: bytes) -> Inspection:
        path = tmp_path / "archive"
        path.write_bytes(content)
        return look_at(path)

    return inspect_bytes


def zstd(content: bytes) -> bytes:
    compressor = zstd_compressor()
    return compressor.compress(content) + compressor.flush()


def zipped(method: int = zipfile.ZIP_DEFLATED, /, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


LZMA_ZIP = zipped(zipfile.ZIP_LZMA, a=b"1" * 999, b=b"2")


def deflate64(content: bytes) -> bytes:
    """The same zip, by what it says compressed as Windows does large files."""
    return content.replace(b"\x00\x00\x08\x00", b"\x00\x00\x09\x00")


def incremental_tar() -> bytes:
    """As `tar --format=gnu --listed-incremental` makes it: a folder with the names that are in it."""
    folder = tarfile.TarInfo("d/")
    names = b"Ya\0\0"
    folder.type, folder.size = b"D", len(names)
    return folder.tobuf(tarfile.GNU_FORMAT) + names.ljust(512, b"\0") + plain_tar({"d/a": b"1" * 600})


def tar_with_size(size: int) -> bytes:
    block = bytearray(plain_tar({"a": b""})[:512])
    block[124:136] = b"\xff" + size.to_bytes(11, signed=True)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("content", "kind", "completeness"),
    [
        pytest.param(sealed_sql(), "sql", "proven", id="sql of ours"),
        pytest.param(gzip.compress(sealed_sql()), "sql", "proven", id="sql of ours in gzip"),
        pytest.param(zstd(sealed_sql()), "sql", "proven", id="sql of ours in zstd"),
        pytest.param(lzma.compress(sealed_sql()), "sql", "proven", id="sql of ours in xz"),
        pytest.param(zipped(dump=sealed_sql()), "sql", "proven", id="sql of ours in zip"),
        pytest.param(gzip.compress(zstd(sealed_sql())), "sql", "proven", id="sql of ours, compressed twice"),
        pytest.param(sealed_tar(FILES), "tar", "proven", id="tar of ours"),
        pytest.param(gzip.compress(sealed_tar(FILES)), "tar", "proven", id="tar of ours in gzip"),
        pytest.param(plain_sql(), "sql", "plausible", id="pg_dump's sql"),
        pytest.param(sealed_tar(FILES) + bytes(10_240), "tar", "proven", id="tar of ours, padded"),
        pytest.param(plain_tar(FILES), "tar", "plausible", id="pax tar"),
        pytest.param(zipped(**{"d/": b"", "d/notes": b"\0text"}), "zip", "plausible", id="zip of one unknown file"),
        pytest.param(zipped(empty=b""), "zip", "plausible", id="zip of an empty file"),
        pytest.param(incremental_tar(), "tar", "plausible", id="incremental tar"),
        pytest.param(
            zipped(**{"d/": b"", "d/dump": sealed_sql()}), "sql", "proven", id="sql of ours in a zipped folder"
        ),
        pytest.param(plain_tar(FILES) + bytes(10_240), "tar", "plausible", id="pax tar, padded"),
        pytest.param(plain_tar(FILES, format=tarfile.GNU_FORMAT), "tar", "plausible", id="gnu tar"),
        pytest.param(plain_tar({}), "tar", "plausible", id="empty tar"),
        pytest.param(zipped(a=b"1", b=b"2"), "zip", "plausible", id="zip of two files"),
        pytest.param(GOOD_RDB, "rdb", "proven", id="rdb"),
        pytest.param(b"REDIS0011\xff" + bytes(8), "rdb", "plausible", id="rdb without a checksum"),
        pytest.param(b"VALKEY080\xff" + bytes(8), "rdb", "plausible", id="rdb of valkey 9"),
        pytest.param(b"INSERT INTO a VALUES (1);\n", "sql", "unknown", id="sql by hand"),
        pytest.param(sealed_sql()[:-1], "sql", "damaged", id="sql of ours without its last byte"),
        pytest.param(sealed_sql() + b"\n", "sql", "damaged", id="sql of ours with a byte more"),
        pytest.param(flipped(sealed_sql(), 5000), "sql", "damaged", id="sql of ours with a flipped bit"),
        pytest.param(gzip.compress(sealed_sql(rows=99_999))[:-10], "sql", "damaged", id="sql of ours in a cut gzip"),
        pytest.param(gzip.compress(b"small")[:-1], "", "damaged", id="small cut gzip"),
        pytest.param(sealed_tar(FILES) + b"x", "tar", "damaged", id="tar of ours that was added to"),
        pytest.param(plain_tar(FILES) + b"x", "tar", "damaged", id="pax tar that was added to"),
        pytest.param(sealed_tar(FILES)[:-512], "tar", "damaged", id="tar of ours, cut in its end"),
        pytest.param(sealed_tar(FILES)[:2048], "tar", "damaged", id="tar of ours, cut between members"),
        pytest.param(flipped(sealed_tar(FILES), 2600), "tar", "damaged", id="tar of ours with a flipped bit"),
        pytest.param(plain_sql()[:-60], "sql", "damaged", id="pg_dump's sql without its end"),
        pytest.param(plain_sql()[:1000], "sql", "damaged", id="pg_dump's sql, cut in rows"),
        pytest.param(plain_tar(FILES)[:1536], "tar", "damaged", id="pax tar, cut between members"),
        pytest.param(plain_tar(FILES)[:600], "tar", "damaged", id="pax tar, cut in a member"),
        pytest.param(flipped(plain_tar(FILES), 1536 + 110), "tar", "damaged", id="pax tar with a flipped header"),
        pytest.param(zipped(a=b"1", b=b"2")[:-5], "", "damaged", id="zip without its list"),
        pytest.param(
            zipped(a=b"1", b=b"2")[:-2] + b"\x16\0PK\5\6" + bytes(18),
            "",
            "damaged",
            id="zip whose comment looks like its end",
        ),
        pytest.param(
            zipped(a=b"1" * 999, b=b"2").replace(zlib.compress(b"1" * 999)[2:-4], b"\xff" * 11),
            "zip",
            "damaged",
            id="zip with a member that does not unpack",
        ),
        pytest.param(
            b"\xff".join((LZMA_ZIP[:40], LZMA_ZIP[41:])), "zip", "damaged", id="zip with a member whose lzma is damaged"
        ),
        pytest.param(deflate64(zipped(a=b"1", b=b"2")), "zip", "unknown", id="zip with an unusual compression"),
        pytest.param(tar_with_size(-1), "tar", "damaged", id="tar with a size below zero"),
        pytest.param(b"REDIS0011\xfa\x00", "rdb", "damaged", id="cut rdb"),
        pytest.param(flipped(GOOD_RDB, 20), "rdb", "damaged", id="rdb with a flipped bit"),
        pytest.param(b"", "", "damaged", id="empty file"),
        pytest.param(bytes(100_000), "tar", "damaged", id="zeros, as a crash leaves them"),
        pytest.param(
            plain_sql().replace(b"\n", b"\r\n"), "sql", "plausible", id="pg_dump's sql with line ends of Windows"
        ),
        pytest.param(b'{"a": 1}', "", "unknown", id="json"),
        pytest.param(bz2.compress(b"x"), "", "unknown", id="bzip2"),
        pytest.param(plain_sql().decode().encode("utf-16"), "", "unknown", id="sql that powershell redirected"),
    ],
)
def test_a_file_is_named_and_judged(
    inspected: Callable[[bytes], Inspection], content: bytes, kind: str, completeness: str
) -> None:
    inspection = inspected(content)

    assert (inspection.kind, inspection.completeness) == (kind, completeness)
    assert inspection.size_bytes == len(content)
    assert (inspection.error is not None) == (completeness == "damaged" or not kind)


def test_names_of_a_zip_are_told_as_an_import_takes_them(inspected: Callable[[bytes], Inspection]) -> None:
    unix = zip_of_raw_names({"größe".encode(): b"1" * 99, b"n\xff": b"2"}, system=3)
    windows = zip_of_raw_names({"größe".encode("cp437"): b"1", b"plain": b"2"}, system=0)

    assert len(inspected(unix).evidence) == 2
    assert "1 of its names are in, 'größe' for one" in inspected(windows).evidence[0]
    damaged = inspected(unix.replace(b"1" * 99, b"3" * 99))
    assert damaged.error is not None
    assert "größe cannot be read" in damaged.error.message


@pytest.mark.parametrize("behind", [b"\n", b"\xff", bytes(9), b"\xff" * 30_000])
def test_what_stands_behind_the_end_of_an_rdb_is_told_as_such(
    inspected: Callable[[bytes], Inspection], behind: bytes
) -> None:
    inspection = inspected(GOOD_RDB + behind)

    assert inspection.error is not None
    assert inspection.error.message.startswith("The snapshot is whole, and something stands behind its end: ")
    assert inspection.error.message.endswith(f" {len(behind):,} byte{'s' if len(behind) > 1 else ''}.")


def test_our_header_and_the_counted_tables_are_told(inspected: Callable[[bytes], Inspection]) -> None:
    inspection = inspected(gzip.compress(sealed_sql()))

    assert inspection.header is not None
    assert inspection.header.app_id == "shop.db"
    assert inspection.counts == {"tables": 2}
    assert inspection.facts["Dumped by version"] == "17.10"
    assert inspection.compression == ("gzip",)
    assert inspection.content_bytes == len(sealed_sql())


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_tables_are_counted_alike_however_the_text_is_split(line_end: bytes) -> None:
    from cli.contents import _SqlScan

    text = plain_sql(rows=50).replace(b"\n", line_end)
    for size in (1, 2, 3, 7, 64, len(text)):
        scan = _SqlScan()
        for start in range(0, len(text), size):
            scan.add(text[start : start + size])

        assert (scan.tables, scan.is_in_copy) == (2, False)


def test_an_rdb_whose_checksum_happens_to_agree_a_byte_early_is_proven(
    inspected: Callable[[bytes], Inspection],
) -> None:
    files = (rdb(key(b"k", string(b"%d\xff" % number))) for number in range(10_000))
    early = next(file for file in files if crc64(file[:-END_BYTES]) & 0xFF == EOF_OPCODE)

    assert crc64(early[:-END_BYTES]).to_bytes(8, "little") == early[-END_BYTES:-1]
    assert inspected(early).completeness == "proven"


def make_database(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE rows (value)")
    database.executemany("INSERT INTO rows VALUES (?)", [("x" * 100,)] * 2000)
    database.commit()
    database.close()


def test_a_sqlite_database_is_checked_by_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    make_database(path)

    inspection = look_at(path)

    assert (inspection.kind, inspection.completeness) == ("sqlite", "plausible")
    assert inspection.counts == {"tables": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["app.db"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-4096], id="a page short"),
        pytest.param(lambda content: content[:8192] + bytes(4096) + content[12288:], id="a page of zeros"),
    ],
)
def test_a_damaged_sqlite_database_is_noticed(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "app.db"
    make_database(path)
    path.write_bytes(damage(path.read_bytes()))

    assert look_at(path).completeness == "damaged"


def test_a_sound_sqlite_database_is_not_called_damaged_for_nulls_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE t (a INTEGER NOT NULL, b TEXT, c TEXT NOT NULL, PRIMARY KEY (c, a)) WITHOUT ROWID"
        )
        database.execute("INSERT INTO t VALUES (1, NULL, 'c')")
        database.commit()

    assert look_at(path).completeness == "plausible"


def test_changes_in_a_wal_beside_a_database_are_mentioned(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    make_database(path)
    (tmp_path / "app.db-wal").write_bytes(b"changes")

    inspection = look_at(path)

    assert any("app.db-wal" in sentence for sentence in inspection.evidence)


def test_a_member_larger_than_ustar_can_say_is_stepped_over(inspected: Callable[[bytes], Inspection]) -> None:
    member = tarfile.TarInfo("large")
    member.size = 3000
    member.pax_headers = {"size": "3000", "comment": "size=17"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(bytes(3000)))

    inspection = inspected(buffer.getvalue())

    assert (inspection.completeness, inspection.counts) == ("plausible", {"files": 1})


async def test_people_read_the_verdict_and_scripts_the_exit_code(mathison: Mathison, tmp_path: Path) -> None:
    (tmp_path / "whole.sql").write_bytes(sealed_sql())
    (tmp_path / "cut.sql").write_bytes(sealed_sql()[:-5])

    whole = await mathison("inspect", "whole.sql")
    cut = await mathison("inspect", "cut.sql")

    assert (whole.exit_code, cut.exit_code) == (0, 6)
    assert "Whole: proven." in whole.text
    assert "Not whole." in cut.text
    assert cut.stderr.startswith("Error: The file is cut off")


async def test_json_is_one_document_also_for_a_damaged_file(mathison: Mathison, tmp_path: Path) -> None:
    (tmp_path / "cut.sql").write_bytes(sealed_sql()[:-5])

    ended = await mathison("inspect", "cut.sql", "--json")

    document = ended.document
    assert ended.exit_code == 6
    assert document["completeness"] == "damaged"
    assert document["error"]["reason"] == "ARCHIVE_TRUNCATED"
    assert document["header"]["app_id"] == "shop.db"


async def test_text_from_an_archive_cannot_steer_the_terminal(mathison: Mathison, tmp_path: Path) -> None:
    hostile = plain_sql().replace(b"17.10", b"\x1b[2J\xe2\x80\xae[red]17")
    (tmp_path / "hostile.sql").write_bytes(hostile)

    ended = await mathison("inspect", "hostile.sql")

    assert "\x1b" not in ended.text
    assert "\u202e" not in ended.text
    assert "[red]17" in ended.text


async def test_what_an_archive_says_of_itself_takes_one_line_each(mathison: Mathison, tmp_path: Path) -> None:
    forged = "\n  SHA-256  0000\r\nWhole: proven.\u2028\x85"
    header = msgspec.structs.replace(
        HEADER, app_id="shop.db" + forged, recipe="n8n" + forged, details={"note" + forged: "x" + forged}
    )
    (tmp_path / "plain.sql").write_bytes(sealed_sql())
    (tmp_path / "forged.sql").write_bytes(sealed_sql(header=header)[:-5])

    plain = await mathison("inspect", "plain.sql")
    forged_one = await mathison("inspect", "forged.sql")

    lines = forged_one.text.splitlines()
    assert len(lines) == len(plain.text.splitlines())
    assert lines[-1].startswith("Not whole.")
    assert [line.split()[0] for line in lines].count("SHA-256") == 1
    assert r"shop.db\n  SHA-256  0000\r\nWhole: proven.\u2028\x85" in forged_one.text


def test_a_command_that_looks_at_a_file_starts_without_what_speaks_to_a_controller() -> None:
    program = "import sys, cli.verifying, cli.inspecting; print(sorted({'aiohttp', 'grpc'} & sys.modules.keys()))"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("header", "reason", "words"),
    [
        ({"format_version": 99}, "ARCHIVE_INCOMPATIBLE", "of format version 99; this program reads up to 1"),
        ({"recipe": "volume"}, "ARCHIVE_DAMAGED", "of recipe 'volume', and its fingerprint is of 'minio/2'"),
        ({"recipe": "min"}, "ARCHIVE_DAMAGED", "of recipe 'min', and its fingerprint is of 'minio/2'"),
        ({"recipe": "minio"}, "", ""),
        ({"recipe": ""}, "", ""),
    ],
)
def test_an_archive_whose_header_no_import_takes_is_not_proven_whole(
    header: dict[str, object], reason: str, words: str, inspected: Callable[[bytes], Inspection]
) -> None:
    told = msgspec.structs.replace(HEADER, **header)

    found = inspected(sealed_tar(FILES, header=told, fingerprint=Fingerprint(scheme="minio/2")))

    assert (found.error.reason if found.error else "") == reason
    assert words in (found.error.message if found.error else "")
    assert (found.completeness == "proven") == (not reason)
