"""The kind of an upload is told from its first bytes, wherever they were cut."""

from __future__ import annotations

import io
import tarfile
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.engines.pg.loading.uploads import HEAD_BYTES, UploadForm, form_of, is_zipped_directory
from common.errors import ArchiveWrongKindError


def tar_of(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def toc(form: int) -> bytes:
    return b"PGDMP\x01\x0e\x00\x04\x08" + bytes([form]) + bytes(1000)


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b"--\n-- PostgreSQL database dump\n", UploadForm.SQL),
        (b"\xef\xbb\xbf--\r\n-- PostgreSQL database dump\r\n", UploadForm.SQL),
        (b"-- mathison-data archive: {}\n--\n", UploadForm.SQL),
        (b"SET x = 1;", UploadForm.SQL),
        (b"/* caf\xe9 */", UploadForm.SQL),
        (toc(1), UploadForm.CUSTOM),
        (b"PGDMP", UploadForm.CUSTOM),
        (tar_of("toc.dat", toc(3)), UploadForm.TAR),
        (tar_of("toc.dat", toc(5)), UploadForm.DIRECTORY),
        (tar_of("dump/1.dat.gz", b"x"), UploadForm.DIRECTORY),
    ],
)
def test_formats_that_are_taken_are_known(content: bytes, form: UploadForm) -> None:
    assert form_of(content[:HEAD_BYTES]) is form


@pytest.mark.parametrize("form", [3, 5])
def test_a_table_of_contents_alone_is_refused_by_name(form: int) -> None:
    with pytest.raises(ArchiveWrongKindError, match="the table of contents"):
        form_of(toc(form)[:HEAD_BYTES])


@settings(deadline=None)
@given(st.binary(max_size=HEAD_BYTES))
def test_any_beginning_has_a_kind_or_is_refused(head: bytes) -> None:
    with suppress(ArchiveWrongKindError):
        assert form_of(head) in UploadForm


@pytest.mark.parametrize(
    ("name", "is_directory"),
    [
        ("dump/", True),
        ("toc.dat", True),
        ("a/b/3456.dat.gz", True),
        ("blobs_2613.toc", True),
        ("shop.sql", False),
        ("toc.data", False),
        ("x" * 1000, False),
    ],
)
def test_a_zip_of_a_dumps_directory_is_told_from_one_of_a_file(name: str, is_directory: bool) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, b"")

    assert is_zipped_directory(packed.getvalue()[:HEAD_BYTES]) is is_directory
    assert not is_zipped_directory(packed.getvalue()[1:])
