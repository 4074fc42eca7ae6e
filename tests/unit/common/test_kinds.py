"""What a file is called by its first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import sqlite3
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import kinds
from common.codecs import zstd_compressor
from common.headers import ArchiveHeader
from common.kinds import kind_of
from common.seals import SqlSealWriter


def tar_named(name: str) -> bytes:
    return tarfile.TarInfo(name).tobuf()


def zip_of_a_file() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", b"1")
    return packed.getvalue()


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE a (b)")
    return bytes(connection.serialize())


def export_of(recipe: str) -> bytes:
    return SqlSealWriter().opening(ArchiveHeader(recipe=recipe, format="sql"))


def named_by_kind(value: object) -> str:
    """Bytes made here hold the time, and a test has one name in all processes."""
    return value if isinstance(value, str) else "head"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", kinds.EMPTY),
        (bytes(4096), "nothing but zeros: its content was lost"),
        (tar_named("a"), kinds.TAR),
        (tar_named("SQLite format 3"), kinds.TAR),
        (tar_named("{}"), kinds.TAR),
        (zip_of_a_file(), kinds.ZIP),
        (gzip.compress(b"1"), "a gzip file"),
        (zstd_compressor().flush(), "a zstd file"),
        (bz2.compress(b"1"), "a bzip2 file"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "a 7-Zip archive"),
        (b"Rar!\x1a\x07\x01\x00", "a RAR archive"),
        (b"\x04\x22\x4d\x18", "an lz4 file"),
        (b"age-encryption.org/v1\n-> X25519 ", "an encrypted file (age)"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n", "an encrypted file (age)"),
        (b"PGDMP\x01\x0f", kinds.POSTGRESQL_CUSTOM),
        (b"--\n-- PostgreSQL database dump\n--\n", kinds.POSTGRESQL_SQL),
        (b"\xef\xbb\xbf--\r\n-- PostgreSQL database dump\r\n--\r\n", kinds.POSTGRESQL_SQL),
        (b"--\n-- PostgreSQL database cluster dump\n--\n", kinds.POSTGRESQL_SQL),
        (export_of("postgresql"), kinds.POSTGRESQL_SQL),
        (b"-- MariaDB dump 10.19  Distrib 10.11.14-MariaDB\n", kinds.MARIADB_SQL),
        (b"/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump", kinds.MARIADB_SQL),
        (export_of("mariadb"), kinds.MARIADB_SQL),
        (b"-- MySQL dump 10.13  Distrib 9.7.4\n", kinds.MYSQL_SQL),
        (b"/*!40101 SET NAMES utf8 */;\n", kinds.MYSQL_SQL),
        (b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n", "a SQLite dump in SQL"),
        (database(), kinds.SQLITE),
        (b"REDIS0011", kinds.REDIS),
        (b"VALKEY080", kinds.VALKEY),
        (b"REDISXXXX", "something that begins like a Redis snapshot and has no version"),
        (b"*2\r\n$6\r\nSELECT\r\n", "an append-only file of Redis (AOF), which holds commands instead of data"),
        (b"file appendonly.aof.1.base.rdb seq 1 type b\n", "the manifest of an append-only file of Redis (AOF)"),
        (b"%PDF-1.7", "a PDF document"),
        (b"\x7fELF\2", "a program"),
        (b"\xef\xbb\xbf [1]", kinds.JSON),
        (b'{"a": 1}', kinds.JSON),
        (b"\r\n<!DOCTYPE html>", "a web page or XML document"),
        ("-- PostgreSQL".encode("utf-16"), kinds.UTF16),
        ("-- PostgreSQL".encode("utf-16-le"), kinds.UTF16),
        ("-- PostgreSQL".encode("utf-16-be"), kinds.UTF16),
        (b"INSERT INTO t VALUES ('-- MySQL dump');", kinds.TEXT),
        ("Grüße\t\x1b[0m\r\n".encode(), kinds.TEXT),
        (b"\x01\x02\x03", kinds.UNKNOWN),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", kinds.UNKNOWN),
    ],
    ids=named_by_kind,
)
def test_a_kind_has_one_name(head: bytes, kind: str) -> None:
    assert kind_of(head) == kind_of(head[: kinds.HEAD_BYTES]) == kind


@given(st.binary(max_size=600))
def test_any_beginning_has_a_kind(head: bytes) -> None:
    assert kind_of(head)
