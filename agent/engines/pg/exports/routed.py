"""Partitions whose rows change places in a dump: those of tables partitioned by the hash of an enum.

An enum value is hashed by its number in the server, which is another in each database. So pg_dump writes such rows for
the whole table, and the server of an import spreads them anew; what a partition holds says nothing of what is the same.
"""

from __future__ import annotations

from typing import NamedTuple

from agent.engines.pg.server.connection import Connection


class Whole(NamedTuple):
    """A partitioned table: its name as SQL needs it, schema, name."""

    quoted: str
    schema: str
    table: str


async def routed_partitions(connection: Connection) -> dict[tuple[str, str], Whole]:
    """By schema and name of each such partition of the connected database: the highest table that spreads its rows."""
    # The condition is pg_dump's own (getPartitioningInfo).
    cursor = await connection.execute("""
        WITH RECURSIVE below (oid, whole, depth) AS (
            SELECT partrelid, partrelid, 0 FROM pg_partitioned_table
             WHERE (SELECT o.oid FROM pg_opclass o JOIN pg_am a ON a.oid = o.opcmethod
                     WHERE o.opcname = 'enum_ops' AND o.opcnamespace = 'pg_catalog'::regnamespace
                       AND a.amname = 'hash') = ANY (partclass)
            UNION ALL
            SELECT i.inhrelid, b.whole, b.depth + 1 FROM below b JOIN pg_inherits i ON i.inhparent = b.oid)
        SELECT DISTINCT ON (b.oid) pn.nspname, p.relname, format('%I.%I', wn.nspname, w.relname), wn.nspname, w.relname
          FROM below b
          JOIN pg_class p ON p.oid = b.oid JOIN pg_namespace pn ON pn.oid = p.relnamespace
          JOIN pg_class w ON w.oid = b.whole JOIN pg_namespace wn ON wn.oid = w.relnamespace
         WHERE b.depth > 0 ORDER BY b.oid, b.depth DESC
    """)
    return {(schema, table): Whole(*whole) for schema, table, *whole in await cursor.fetchall()}
