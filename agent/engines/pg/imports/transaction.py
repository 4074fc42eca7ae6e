"""The one transaction of an import within the app's own database: what runs before the file and after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg import sql

from agent.engines.pg.aside.moving import app_schemas, give_large_objects, kept_prefix, take_aside
from agent.engines.pg.aside.publications import exchange, of_role, published
from agent.engines.pg.belongings.carry_over import Gift, gifts_of_things, special_things
from agent.engines.pg.belongings.read import PUBLICATION, WRAPPER, read_belongings
from agent.engines.pg.imports.kept_state import changes_are_counted, end_of_code, own_sequences, state_queries
from agent.engines.pg.loading.terms import Terms
from agent.engines.pg.server.catalog import USER_SCHEMA, DatabaseFacts, extension_tables, foreign_servers, no_member
from agent.engines.pg.server.connection import Connection
from agent.engines.pg.server.privileges import usual_again

LOCK_WAIT_SECONDS = 20
"""For the app's open transactions to end; they hold what is to be moved."""
_OURS = "SELECT pg_catalog.set_config('client_encoding', 'UTF8', false)"
"""What our statements are in; a file says what it is in itself, and that is in force until its end."""
_NO_SEARCH_PATH = "SELECT pg_catalog.set_config('search_path', '', false)"
_NOTHING_OF_THE_FILE = "SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false)"
"""Where the path does not name them, temporary tables come first."""
_IF_THERE = """DO $do$ BEGIN
BEGIN {statement};
EXCEPTION WHEN insufficient_privilege THEN {otherwise};
END;
EXCEPTION WHEN undefined_table OR undefined_object OR undefined_function OR undefined_column OR invalid_schema_name
    OR wrong_object_type OR insufficient_privilege THEN NULL; END $do$"""


async def relations(connection: Connection) -> frozenset[int]:
    """The app's tables and their kin, by number; those stay what they are when they are moved."""
    cursor = await connection.execute(f"""
        SELECT c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND {no_member("pg_class", "c.oid")}
    """)  # noqa: S608
    return frozenset([number for (number,) in await cursor.fetchall()])


async def make_terms(connection: Connection, database: DatabaseFacts, key: str) -> Terms:
    """All statements, as the database is now. One that does not fit any more ends the transaction.

    Args:
        connection: to the app's database, of the role that will load.
    """
    belongings = await read_belongings(connection, database, app_role=connection.info.user, loader=connection.info.user)
    # A wrapper belongs to a superuser and stays where it is, as a publication does, but for its tables.
    things = [thing for thing in special_things(belongings) if thing.kind not in (PUBLICATION, WRAPPER)]
    gifts = gifts_of_things(belongings, things)
    before = [
        changes_are_counted(),
        sql.SQL("SET LOCAL lock_timeout = {}").format(f"{LOCK_WAIT_SECONDS}s"),
        # What was loaded has to be on the disk when its loader is told so.
        sql.SQL("SET LOCAL synchronous_commit = on"),
        *await take_aside(connection, key),
        own_sequences(kept_prefix(key)),
        sql.SQL("SET LOCAL lock_timeout = 0"),
    ]
    there = [schema.name for schema in await app_schemas(connection) if not schema.can_be_renamed]
    # After the file: until then nothing may write to the catalogs of publications.
    publishing = exchange(kept_prefix(key), of_role(await published(connection)))
    gifts_there = [give_large_objects(f"{kept_prefix(key)}0"), *(_if_there(gift) for gift in gifts)]
    return Terms(
        is_restricted=True,
        before=("BEGIN", _OURS, _NO_SEARCH_PATH, *_texts(connection, before), "RESET client_encoding"),
        same=state_queries(kept_prefix(key)).as_string(connection),
        settling=(_OURS, _NOTHING_OF_THE_FILE, *_texts(connection, end_of_code(kept_prefix(key)))),
        after=(*_texts(connection, [usual_again(there), publishing, *gifts_there]), "COMMIT"),
        foreign_servers=frozenset(await foreign_servers(connection)),
        extension_tables=await extension_tables(connection),
    )


def _if_there(gift: Gift) -> sql.Composed:
    otherwise: Sequence[sql.Composable] = [sql.SQL("NULL")]
    if gift.lending is not None:
        lend, take_back = gift.lending
        otherwise = [lend, gift.statement, take_back]
    return sql.SQL(_IF_THERE).format(statement=gift.statement, otherwise=sql.SQL("; ").join(otherwise))


def _texts(connection: Connection, statements: Iterable[sql.Composable]) -> list[str]:
    return [statement.as_string(connection) for statement in statements]
