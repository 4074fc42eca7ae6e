"""Dumps of real pg_dumps, in every format and of every major, bring the same content into an empty database."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from common.codecs import zstd_compressor
from common.errors import ArchiveDamagedError, ArchiveIncompatibleError, ArchiveTruncatedError
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.loading.conftest import MakeSource, MakeTarget, RichSource
from tests.integration.agent.engines.pg.loading.targets import Source, Target
from tools.servers import MAJORS


@variants(
    ("major", "form"),
    [
        *((major, form) for major in MAJORS for form in ("plain", "custom")),
        # By each pg_dump; older servers are dumped by that of 16.
        *((major, form) for major in (16, 17, 18) for form in ("tar", "directory")),
    ],
    kept=[(13, "plain"), (17, "custom")],
)
async def test_every_format_of_every_major_brings_the_same_content(
    major: int, form: str, rich_source: RichSource, make_target: MakeTarget
) -> None:
    source, target = rich_source(major), make_target(major)

    loaded = await target.load(source.dump(form))

    assert (await source.fingerprint()).differences(await target.fingerprint()) == []
    assert loaded.archive_format == ("sql" if form == "plain" else form)
    assert loaded.source_version.startswith(source.server.install.version)
    assert (loaded.counts["tables"], loaded.counts["large_objects"]) == (20 if major not in (16,) else 19, 3)
    assert target.left_over() == []


OPTIONS = [
    ("plain", "--inserts"),
    ("plain", "--column-inserts", "--rows-per-insert=7"),
    ("plain", "--inserts", "--on-conflict-do-nothing"),
    ("plain", "--clean"),
    ("plain", "--clean", "--if-exists"),
    ("plain", "--quote-all-identifiers"),
    ("plain", "--no-owner", "--no-privileges"),
    ("plain", "--disable-dollar-quoting"),
    ("plain", "--load-via-partition-root"),
    ("plain", "--encoding=UTF8", "--serializable-deferrable"),
    ("custom", "--compress=0"),
    ("custom", "--clean", "--create"),
    ("directory", "--compress=0"),
    ("directory", "--jobs=2"),
]


@variants("options", OPTIONS, ids=" ".join, kept=[("plain", "--clean", "--if-exists"), ("directory", "--jobs=2")])
async def test_whatever_pg_dumps_options_the_content_is_the_same(
    options: tuple[str, ...], rich_source: RichSource, target: Target
) -> None:
    source = rich_source(17)

    await target.load(source.dump(*options))

    assert (await source.fingerprint()).differences(await target.fingerprint()) == []


@variants(
    ("source_major", "target_major", "client"),
    [(18, 15, 18), (17, 14, 17), (18, 17, 18), (15, 14, 18), (15, 18, 17), (14, 17, 17)],
    kept=[(18, 15, 18)],
)
@variants("form", ["plain", "custom"])
async def test_dumps_of_another_major_load(
    source_major: int, target_major: int, client: int, form: str, rich_source: RichSource, make_target: MakeTarget
) -> None:
    source, target = rich_source(source_major), make_target(target_major)

    await target.load(source.dump(form, client=client))

    assert (await source.fingerprint()).differences(await target.fingerprint()) == []


@variants("target_major", [17, 18], kept=[18])
async def test_a_dump_with_the_planners_statistics_loads_without_them(
    target_major: int, rich_source: RichSource, make_target: MakeTarget
) -> None:
    source, target = rich_source(18), make_target(target_major)
    source.run("ANALYZE shop.customers")
    dump = source.dump("plain", "--statistics")
    assert b"pg_restore_attribute_stats" in dump

    await target.load(dump)

    assert (await source.fingerprint()).differences(await target.fingerprint()) == []


async def test_a_dump_of_the_oldest_major_loads_into_the_newest(
    rich_source: RichSource, make_target: MakeTarget
) -> None:
    source, target = rich_source(13), make_target(18)

    await target.load(source.dump())

    here, there = await source.fingerprint(), await target.fingerprint()
    assert (here.tables, here.sequences, here.large_objects) == (there.tables, there.sequences, there.large_objects)


async def test_what_an_older_server_cannot_hold_is_refused_with_both_versions(
    rich_source: RichSource, make_target: MakeTarget
) -> None:
    target = make_target(13)

    with pytest.raises(ArchiveIncompatibleError, match=r"made from PostgreSQL 15, this server is 13.*multirange"):
        await target.load(rich_source(15).dump())


def _zip(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dump.sql", content)
    return file.getvalue()


def _zstd(content: bytes) -> bytes:
    compressor = zstd_compressor()
    return compressor.compress(content) + compressor.flush()


def _xz(content: bytes) -> bytes:
    return lzma.compress(content, preset=1)


@variants(
    ("form", "pack"),
    [
        *(("plain", pack) for pack in (gzip.compress, _zip, _zstd, _xz)),
        ("custom", _zip),
        ("custom", _zstd),
        ("tar", gzip.compress),
        ("tar", _xz),
        ("directory", gzip.compress),
        ("directory", _zstd),
    ],
    kept=[("custom", _zstd), ("tar", _xz)],
)
async def test_compression_around_a_dump_is_taken_off(
    form: str, pack: Callable[[bytes], bytes], rich_source: RichSource, target: Target
) -> None:
    source = rich_source(17)

    loaded = await target.load(pack(source.dump(form)))

    assert loaded.layers != ()
    assert (await source.fingerprint()).differences(await target.fingerprint()) == []


def _as_directory(source: Source) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(source.dump("directory"))) as archive:
        return {
            member.name.split("/")[-1]: file.read()
            for member in archive.getmembers()
            if (file := archive.extractfile(member)) is not None
        }


@variants(
    ("folder", "method"),
    [("", zipfile.ZIP_STORED), ("dump/", zipfile.ZIP_DEFLATED), ("a/b c/", zipfile.ZIP_DEFLATED)],
    ids=["top, stored", "folder, deflated", "folders, deflated"],
    kept=[("dump/", zipfile.ZIP_DEFLATED)],
)
async def test_a_directory_may_come_as_a_zip(folder: str, method: int, rich_source: RichSource, target: Target) -> None:
    source = rich_source(17)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        if folder:
            archive.mkdir(folder)
        for name, content in _as_directory(source).items():
            archive.writestr(folder + name, content)

    loaded = await target.load(packed.getvalue())

    assert loaded.archive_format == "directory"
    assert (await source.fingerprint()).differences(await target.fingerprint()) == []
    assert target.left_over() == []


@pytest.mark.parametrize(
    ("harm", "refusal"),
    [
        (lambda packed: packed[: len(packed) // 2], ArchiveTruncatedError),
        (lambda packed: packed[:200] + b"x" * 20 + packed[220:], ArchiveDamagedError),
    ],
    ids=["cut", "changed"],
)
async def test_a_zip_that_is_not_whole_is_refused(
    harm: Callable[[bytes], bytes], refusal: type[Exception], rich_source: RichSource, target: Target
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(_as_directory(rich_source(17)).items(), key=lambda one: one[0] != "toc.dat"):
            archive.writestr(name, content)

    with pytest.raises(refusal):
        await target.load(harm(packed.getvalue()))

    assert target.left_over() == []


def _tar(files: dict[str, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tar_format) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


@variants(
    ("prefix", "tar_format"),
    [
        ("", tarfile.USTAR_FORMAT),
        ("./", tarfile.GNU_FORMAT),
        ("/absolute/dump/", tarfile.PAX_FORMAT),
        ("a/b/" + "long" * 40 + "/", tarfile.PAX_FORMAT),
        ("a/b/" + "long" * 40 + "/", tarfile.GNU_FORMAT),
    ],
    ids=["top, ustar", "dot, gnu", "absolute, pax", "long, pax", "long, gnu"],
    kept=[("", tarfile.USTAR_FORMAT), ("a/b/" + "long" * 40 + "/", tarfile.GNU_FORMAT)],
)
async def test_a_packed_directory_may_be_anywhere_in_its_tar_beside_other_files(
    prefix: str, tar_format: int, rich_source: RichSource, target: Target
) -> None:
    source = rich_source(17)
    files = {"README": b"read me", f"{prefix}._toc.dat": b"of a Mac", f"{prefix}notes.txt": b"mine"}
    files |= {prefix + name: content for name, content in _as_directory(source).items()}

    await target.load(_tar(files, tar_format))

    assert (await source.fingerprint()).differences(await target.fingerprint()) == []
    assert target.left_over() == []


@variants(
    ("options", "encoding"),
    [
        (("plain",), "UTF8"),
        (("plain",), "LATIN1"),
        (("plain", "--inserts"), "UTF8"),
        (("custom",), "UTF8"),
        (("custom",), "LATIN1"),
        (("plain", "--encoding=UTF8"), "LATIN1"),
    ],
    ids=str,
    kept=[(("plain", "--inserts"), "UTF8"), (("custom",), "LATIN1")],
)
async def test_a_dump_in_latin1_is_read_as_such(
    options: tuple[str, ...], encoding: str, make_source: MakeSource, make_target: MakeTarget
) -> None:
    source = make_source(17, options="ENCODING LATIN1 LOCALE 'C'")
    source.run("CREATE TABLE grün (naïve text DEFAULT 'é;'); INSERT INTO grün VALUES ('ÄÖÜ ß ÿ'), (E'\\\\'), ('é''')")
    source.run(
        "CREATE FUNCTION süß() RETURNS text LANGUAGE sql AS $ä$ SELECT 'ñ' $ä$; CREATE INDEX größe ON grün (naïve)"
    )
    target = make_target(17, options=f"ENCODING {encoding} LOCALE 'C'")
    dump = source.dump(*options)

    await target.load(dump)

    assert target.value("SELECT array_agg(naïve ORDER BY naïve) FROM grün") == ["\\", "ÄÖÜ ß ÿ", "é'"]
    assert target.value("SELECT süß()") == "ñ"


@variants("options", [("plain",), ("plain", "--inserts"), ("custom",)], ids=str, kept=[("plain", "--inserts")])
async def test_a_dump_that_does_not_know_its_encoding_is_read_in_the_databases_and_refused_where_it_is_none(
    options: tuple[str, ...], make_source: MakeSource, make_target: MakeTarget
) -> None:
    dumps = []
    for letter in ("c3a9", "e9"):
        source = make_source(17, options="ENCODING SQL_ASCII LOCALE 'C'")
        source.run(f"CREATE TABLE t (a text); INSERT INTO t VALUES (convert_from('\\x{letter}', 'SQL_ASCII'))")
        dumps.append(source.dump(*options))

    with pytest.raises(ArchiveIncompatibleError, match="another encoding than the dump says"):
        await make_target().load(dumps[1])
    target = make_target()
    await target.load(dumps[0])

    assert target.value("SELECT a FROM t") == "é"


async def test_a_dump_with_old_strings_is_read_as_such(make_source: MakeSource, target: Target) -> None:
    source = make_source(17, "rich.sql")
    source.run(f"ALTER DATABASE {source.name} SET standard_conforming_strings = off", as_owner=False)
    dump = source.dump("plain", "--inserts")
    assert b"SET standard_conforming_strings = off;" in dump

    await target.load(dump)

    assert (await source.fingerprint()).differences(await target.fingerprint()) == []


async def test_lines_may_end_as_on_windows(rich_source: RichSource, target: Target) -> None:
    text = (
        "CREATE TABLE t (a int, b text);\n\nCOPY t (a, b) FROM stdin;\n1\tone\n2\ttwo\n\\.\n\nCREATE INDEX ON t (a);\n"
    )

    loaded = await target.load(
        b"\xef\xbb\xbf"
        + b"--\n-- PostgreSQL database dump\n--\n".replace(b"\n", b"\r\n")
        + text.replace("\n", "\r\n").encode()
        + b"\r\n--\r\n-- PostgreSQL database dump complete\r\n--\r\n"
    )

    assert target.run("SELECT a, b FROM t ORDER BY a") == [(1, "one"), (2, "two")]
    assert loaded.counts["rows"] == 2


async def test_a_dump_without_pg_dumps_comments_between_statements_loads(
    rich_source: RichSource, target: Target
) -> None:
    source = rich_source(17)
    dump = b"\n".join(
        line for line in source.dump().split(b"\n") if not line.startswith((b"-- Name: ", b"-- Data for Name: "))
    )
    assert b"Type: TABLE;" not in dump

    await target.load(dump)

    assert (await source.fingerprint()).differences(await target.fingerprint()) == []
