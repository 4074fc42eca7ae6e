"""A MariaDB database out, against `mariadb-dump | gzip -1`, and what its fingerprint adds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.recipes.mariadb import MariadbRecipe
from benchmarks.exporting import export, make_recipe
from benchmarks.programs import shell
from benchmarks.rows import Row, medians, ratio_at_least, seconds_of
from tools.servers import MariadbServer, mariadb

ROWS_OF_A_MEGABYTE = 4000
_TABLE = (
    "CREATE DATABASE bench; USE bench; CREATE TABLE orders"
    " (id int PRIMARY KEY, at datetime, customer varchar(60), n int, note text) DEFAULT CHARSET utf8mb4;"
)


def export_rows(folder: Path, *, size_megabytes: int, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Throughput in MB of the dump's text a second.

    Args:
        folder: for archives.
    """
    with MariadbServer(mariadb()) as server:
        say(f"making a MariaDB database of {size_megabytes} MB")
        rows = size_megabytes * ROWS_OF_A_MEGABYTE
        server.sql(
            f"{_TABLE} INSERT INTO orders SELECT seq, '2026-01-01' + INTERVAL seq SECOND, MD5(seq), seq * 7,"
            f" CONCAT(SHA2(seq, 512), ' it''s ', MD5(seq)) FROM seq_1_to_{rows};"
        )
        password = folder / "mariadb-password"
        password.write_text(server.password)
        settings = {
            "database": "bench",
            "user": server.superuser,
            "password_file": str(password),
            "port": server.port,
            "client_directory": str(server.install.bin_directory),
        }
        recipe = make_recipe(MariadbRecipe, folder, settings)
        dump = (
            f"{server.install.bin_directory}/mariadb-dump --no-defaults --protocol=tcp --host={server.host}"
            f" --port={server.port} --user={server.superuser} --single-transaction --quick bench"
        )
        path = folder / "ours.sql.gz"

        def theirs() -> None:
            shell(f"{dump} | gzip -1 > {folder}/theirs.sql.gz", environment={"MYSQL_PWD": server.password})

        found = medians(
            {
                "ours": lambda: seconds_of(lambda: export(recipe, path, format_name="sql.gz")),
                "without fingerprint": lambda: seconds_of(
                    lambda: export(recipe, path, format_name="sql.gz", options={"fingerprint": "no"})
                ),
                "mariadb-dump | gzip -1": lambda: seconds_of(theirs),
            },
            rounds=rounds,
            say=say,
        )
    ours, without, reference = (size_megabytes / seconds for seconds in found.values())
    return [
        Row("mariadb export against mariadb-dump | gzip -1", ours, "MB/s", ratio_at_least(0.9), reference),
        Row("mariadb export with against without fingerprint", ours, "MB/s", ratio_at_least(0.87), without),
    ]
