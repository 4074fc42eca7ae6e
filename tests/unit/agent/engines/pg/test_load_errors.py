"""Each error of the server becomes the error that its uploader can act on, whatever language the server speaks."""

from __future__ import annotations

import pytest

from agent.engines.pg.loading.errors import Failure, explain
from common.errors import (
    AppUnavailableError,
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    NoSpaceError,
    ServiceError,
    ToolFailedError,
)


def failure(
    sqlstate: str,
    head: str = "SELECT 1",
    *,
    source: str = "17.10",
    has_tables: bool = True,
    is_inside_code: bool = False,
) -> Failure:
    return Failure(
        line=12,
        sqlstate=sqlstate,
        message="gesagt",
        head=head,
        source_version=source,
        has_tables=has_tables,
        is_inside_code=is_inside_code,
    )


CASES: list[tuple[Failure, type[ServiceError], str]] = [
    (failure(""), AppUnavailableError, "went away"),
    (failure("57P01"), AppUnavailableError, "ended the import"),
    (failure("08006"), AppUnavailableError, "ended the import"),
    (failure("53100"), NoSpaceError, "disk of the PostgreSQL server is full"),
    (failure("53200"), ToolFailedError, "could not go on"),
    (failure("40P01"), ToolFailedError, "could not go on"),
    (failure("42501"), ArchiveRefusedError, "may not do"),
    (failure("42501", "SET SESSION AUTHORIZATION 'x'"), ArchiveRefusedError, "another role"),
    (failure("22023", "SET SESSION AUTHORIZATION 'x'"), ArchiveRefusedError, "another role"),
    (failure("42501", "CREATE ROLE anon"), ArchiveRefusedError, "makes or changes a role"),
    (failure("42501", "CREATE USER MAPPING FOR x"), ArchiveIncompatibleError, "makes a user mapping"),
    (failure("42501", "ALTER TABLE t DISABLE TRIGGER ALL"), ArchiveRefusedError, "--disable-triggers"),
    (failure("42501", "SET session_replication_role = replica"), ArchiveRefusedError, "triggers and constraints off"),
    (failure("42501", "INSERT INTO public.srs VALUES"), ArchiveRefusedError, r"rows to public\.srs, which is not the"),
    (failure("42501", "CREATE OR REPLACE FUNCTION f() LANGUAGE c"), ArchiveIncompatibleError, "only a superuser"),
    (
        failure("42501", 'CREATE FOREIGN TABLE public."a b" (n'),
        ArchiveIncompatibleError,
        'foreign table public."a b", w',
    ),
    (failure("42501", "CREATE OPERATOR CLASS o"), ArchiveIncompatibleError, "only a superuser"),
    (
        failure("42501", "CREATE FOREIGN DATA WRAPPER d"),
        ArchiveIncompatibleError,
        "makes a foreign data wrapper, which",
    ),
    (failure("42501", "CREATE TRUSTED PROCEDURAL LANGUAGE p"), ArchiveIncompatibleError, "makes a language, which"),
    (failure("42501", "CREATE ACCESS METHOD a"), ArchiveIncompatibleError, "makes an access method, which"),
    (
        failure("42501", "REFRESH MATERIALIZED VIEW public.m"),
        ArchiveRefusedError,
        r"view public\.m, and its query fails",
    ),
    (failure("42P01", "REFRESH MATERIALIZED VIEW m"), ArchiveIncompatibleError, "its query fails in an import"),
    (failure("22012", "REFRESH MATERIALIZED VIEW m"), ArchiveIncompatibleError, "its query fails in an import"),
    (failure("55000", "REFRESH MATERIALIZED VIEW m"), ArchiveIncompatibleError, "its query fails in an import"),
    (failure("55000", "INSERT INTO t SELECT"), ArchiveIncompatibleError, "no foreign server is reached"),
    (failure("08001", "REFRESH MATERIALIZED VIEW m"), ArchiveIncompatibleError, "its query fails in an import"),
    (failure("57P01", "REFRESH MATERIALIZED VIEW m"), AppUnavailableError, "ended the import"),
    (failure("53100", "REFRESH MATERIALIZED VIEW m"), NoSpaceError, "disk of the PostgreSQL server is full"),
    (failure("42501", 'CREATE EXTENSION IF NOT EXISTS "x-y" WITH'), ArchiveIncompatibleError, 'extension "x-y"'),
    (failure("58P01", "CREATE EXTENSION postgis"), ArchiveIncompatibleError, "extension postgis"),
    (failure("0A000", "CREATE EXTENSION postgis"), ArchiveIncompatibleError, "extension postgis"),
    (failure("57P01", "CREATE EXTENSION postgis"), AppUnavailableError, "ended the import"),
    (failure("22P02", "COPY t FROM stdin"), ArchiveDamagedError, "do not fit"),
    (failure("23505", "INSERT INTO t"), ArchiveDamagedError, "do not fit"),
    (failure("22P05", "COPY t FROM stdin"), ArchiveIncompatibleError, "cannot hold such characters"),
    (failure("42P01", "COPY t FROM stdin", has_tables=False), ArchiveIncompatibleError, "rows but no tables"),
    (failure("42P01", "COPY t FROM stdin"), ArchiveIncompatibleError, "does not take the dump"),
    (failure("42704", "CREATE POLICY p ON t TO x"), ArchiveIncompatibleError, "does not have"),
    (
        failure("42704", "SET new_setting = 1", source="18.6"),
        ArchiveIncompatibleError,
        "from PostgreSQL 18, this .* 17",
    ),
    (failure("42601", "CREATE x", source="18.6"), ArchiveIncompatibleError, "from PostgreSQL 18"),
    (failure("0A000", "ALTER TABLE t ADD", source="18.6"), ArchiveIncompatibleError, "from PostgreSQL 18"),
    (failure("42883", "CREATE VIEW v", source="18.6", is_inside_code=True), ArchiveIncompatibleError, "PostgreSQL 18"),
    (
        failure("0A000", "CREATE INDEX i", source="18.6", is_inside_code=True),
        ArchiveRefusedError,
        "a function of its own",
    ),
    (failure("0A000", "CREATE INDEX i", is_inside_code=True), ArchiveRefusedError, "a function of its own"),
    (
        failure("42P07", "CREATE TABLE s", source="18.6"),
        ArchiveIncompatibleError,
        "^PostgreSQL 17 does not take the dump",
    ),
    (
        failure("P0001", "CREATE INDEX i", source="18.6"),
        ArchiveIncompatibleError,
        "^PostgreSQL 17 does not take the dump",
    ),
    (failure("25001", "CREATE DATABASE d", source="18.6"), ArchiveDamagedError, "not what pg_dump writes"),
    (failure("42601", "CREATE x"), ArchiveDamagedError, "not what pg_dump writes"),
    (failure("22023", "SET x = y"), ArchiveIncompatibleError, "does not take the dump"),
]


@pytest.mark.parametrize(("met", "expected", "said"), CASES)
def test_each_error_becomes_one_that_its_uploader_can_act_on(
    met: Failure, expected: type[ServiceError], said: str
) -> None:
    error = explain(met, server_version_num=170010)

    assert type(error) is expected
    assert pytest.RaisesExc(expected, match=said).matches(error)
    assert "gesagt" in error.text
