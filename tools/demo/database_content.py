"""A shop's database of any size, made in seconds: several schemas, large objects, text that compresses as text does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
from psycopg import sql

_HERE = Path(__file__).parent
_WORDS = (_HERE / "words.txt").read_text().split()
ROWS_BYTES = 1 << 20
"""Size of what is given to COPY at once."""
MEGABYTE = 1_000_000


def load(dsn: str, *, size_megabytes: int, seed: int = 1) -> None:
    """Fill an empty database of the app's role; the same seed gives the same content.

    Args:
        size_megabytes: of the rows as plain text, so also of a plain dump; indexes and pages come on top.
    """
    choice = random.Random(seed)  # noqa: S311 - nothing secret
    phrases = _phrases(choice)
    size_bytes = size_megabytes * MEGABYTE
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute((_HERE / "shop_tables.sql").read_bytes())
        customers = max(100, size_bytes // 5000)
        with connection.transaction():
            _copy(
                connection,
                "public.customers (name, email, home, profile, joined_at)",
                (_customer(choice, phrases, number) for number in range(1, customers + 1)),
            )
        _copy_sized(
            connection,
            "archive.documents (id, customer_id, title, body, scan)",
            lambda number: _document(choice, phrases, number, customers),
            size_bytes=size_bytes * 55 // 100,
        )
        _copy_sized(
            connection,
            "archive.events (id, at, kind, content)",
            lambda number: _event(choice, phrases, number),
            size_bytes=size_bytes * 20 // 100,
        )
        _load_orders(connection, customers, size_bytes=size_bytes * 20 // 100)
        _load_small_things(connection, choice)
        connection.execute((_HERE / "shop_indexes.sql").read_bytes())


def write_more(dsn: str) -> None:
    """What a busy afternoon changes: rows added, changed and deleted, a sequence moved, a table made."""
    with psycopg.connect(dsn, autocommit=True) as connection, connection.transaction():
        connection.execute("UPDATE sales.orders SET state = 'returned' WHERE id % 50 = 0 AND state <> 'returned'")
        connection.execute("DELETE FROM archive.documents WHERE id % 40 = 0")
        connection.execute(
            "INSERT INTO public.customers (name, email, profile, joined_at) SELECT 'Late ' || n, 'late' || n ||"
            " '@example.org', '{}', '2026-01-01Z' FROM generate_series(1, 1000) AS n"
        )
        connection.execute("SELECT nextval('sales.invoice_numbers') FROM generate_series(1, 10)")
        connection.execute(
            "CREATE TABLE sales.vouchers AS SELECT n AS id, md5(n::text) AS code FROM generate_series(1, 5000) n"
        )


def wipe(dsn: str) -> None:
    """Drop everything that the app's role owns in its database, as a bad migration would."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE lomowner = CURRENT_USER::regrole")
        # Also those of pg_database_owner, whose member the database's owner is.
        names = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE pg_has_role(nspowner, 'USAGE') AND nspname !~ '^pg_'"
        ).fetchall()
        for (name,) in names:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
        connection.execute("CREATE SCHEMA public")


def _phrases(choice: random.Random) -> list[str]:
    return [" ".join(choice.choices(_WORDS, k=choice.randint(4, 12))) for _ in range(4000)]


def _customer(choice: random.Random, phrases: list[str], number: int) -> bytes:
    word, other = choice.choice(_WORDS), choice.choice(_WORDS)
    profile = f'{{"likes": "{choice.choice(phrases)}", "points": {choice.randrange(10_000)}, "newsletter": true}}'
    home = f'("{choice.choice(phrases)[:30]}",{other})'
    moment = (
        f"202{choice.randrange(6)}-0{choice.randrange(1, 10)}-1{choice.randrange(10)} 08:{choice.randrange(10, 60)}Z"
    )
    return f"{word.title()} {other.title()}\tc{number}@example.org\t{home}\t{profile}\t{moment}\n".encode()


def _document(choice: random.Random, phrases: list[str], number: int, customers: int) -> bytes:
    # Few large rows and many small ones, as documents are.
    words = choice.choices(phrases, k=min(4000, int(choice.paretovariate(1.1) * 6)))
    scan = f"\\\\x{choice.randbytes(200).hex()}" if number % 8 == 0 else "\\N"
    customer = choice.randrange(customers) + 1
    return f"{number}\t{customer}\t{words[0]}\t{'. '.join(words)}\\nEnd of {number}.\t{scan}\n".encode()


def _event(choice: random.Random, phrases: list[str], number: int) -> bytes:
    moment = f"202{choice.randrange(4, 7)}-{choice.randrange(1, 13):02}-1{choice.randrange(10)} 10:00:{number % 60:02}Z"
    content = (
        f'{{"text": "{choice.choice(phrases)}", "number": {number}, "ids": [{choice.randrange(10**9)}, {number % 7}]}}'
    )
    return f"{number}\t{moment}\t{_WORDS[number % 17]}\t{content}\n".encode()


def _copy_sized(connection: psycopg.Connection, target: str, row: Callable[[int], bytes], *, size_bytes: int) -> None:
    def rows() -> Iterator[bytes]:
        made = number = 0
        while made < size_bytes:
            number += 1
            line = row(number)
            made += len(line)
            yield line

    _copy(connection, target, rows())


def _copy(connection: psycopg.Connection, target: str, rows: Iterator[bytes]) -> None:
    with connection.cursor().copy(f"COPY {target} FROM STDIN".encode()) as copy:
        gathered = bytearray()
        for row in rows:
            gathered += row
            if len(gathered) >= ROWS_BYTES:
                copy.write(bytes(gathered))
                gathered.clear()
        copy.write(bytes(gathered))


def _load_orders(connection: psycopg.Connection, customers: int, *, size_bytes: int) -> None:
    """About 70 bytes a row as text, made by the server itself."""
    connection.execute("SELECT setseed(0.5)")
    connection.execute(
        """
        INSERT INTO sales.orders (customer_id, state, total, placed_at, tags)
        SELECT 1 + (n * 7919) %% %(customers)s, ('{placed,paid,sent,returned}'::sales.order_state[])[1 + n %% 4],
            (random() * 10000)::numeric(12, 2), '2024-01-01Z'::timestamptz + n * '7 seconds'::interval,
            CASE WHEN n %% 5 = 0 THEN '{gift,"two words"}'::text[] ELSE '{}' END
        FROM generate_series(1, %(rows)s::bigint) AS n
        """,
        {"customers": customers, "rows": size_bytes // 70},
    )


def _load_small_things(connection: psycopg.Connection, choice: random.Random) -> None:
    days = ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag")
    connection.cursor().executemany(
        'INSERT INTO "Büro"."Öffnungszeiten" VALUES (%s, %s, %s)', [(day, "08:00", "17:30") for day in days]
    )
    for number in range(20):
        connection.execute(
            "INSERT INTO archive.recordings SELECT %s, lo_from_bytea(0, %s)",
            (f"recording {number}", choice.randbytes(200_000 + number * 1000)),
        )
