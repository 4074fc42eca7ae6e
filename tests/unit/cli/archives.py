"""Small real archives, ours and those of others."""

from __future__ import annotations

import datetime as dt
import io
import tarfile

from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from common.seals import SqlSealWriter, TarSealWriter

HEADER = ArchiveHeader(
    recipe="postgresql",
    format="sql",
    format_version=1,
    engine="postgresql",
    engine_version="17.10",
    made_by="mathison-data 0.1.0",
    created_at=dt.datetime(2026, 11, 23, 17, 40, tzinfo=dt.UTC),
    app_id="shop.db",
    counts={"tables": 2},
    details={"database": "app"},
)


def plain_sql(*, rows: int = 1000) -> bytes:
    """As pg_dump writes it."""
    lines = "".join(f"{row}\tCREATE TABLE is a value here\n" for row in range(rows))
    return (
        "--\n-- PostgreSQL database dump\n--\n\n"
        "-- Dumped from database version 17.10\n-- Dumped by pg_dump version 17.10\n\n"
        "CREATE TABLE public.a (x int, y text);\nCREATE UNLOGGED TABLE public.b (x int);\n\n"
        f"COPY public.a (x, y) FROM stdin;\n{lines}\\.\n\n"
        "--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict 7bZ\n\n"
    ).encode()


def sealed_sql(*, rows: int = 1000, header: ArchiveHeader = HEADER) -> bytes:
    """As an export of ours is."""
    writer = SqlSealWriter()
    opening, body = writer.opening(header), plain_sql(rows=rows)
    writer.add(body)
    return opening + body + writer.closing()


def plain_tar(files: dict[str, bytes], *, format: int = tarfile.PAX_FORMAT) -> bytes:
    """As tar writes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def sealed_tar(
    files: dict[str, bytes], *, header: ArchiveHeader = HEADER, fingerprint: Fingerprint | None = None
) -> bytes:
    """As an export of ours is."""
    writer = TarSealWriter()
    opening = writer.opening(header)
    blocks = plain_tar(files)
    end = len(blocks.rstrip(b"\0"))
    body = blocks[: -(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE]
    writer.add(body)
    return opening + body + writer.closing(fingerprint)
