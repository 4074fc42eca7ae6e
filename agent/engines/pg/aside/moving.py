"""SQL that takes a database's content aside within the database and brings it back.

A schema of the app's own is renamed. In `public`, and in a schema that an extension uses, each object that no extension
owns is moved alone (moving the extension fails: its objects belong to the superuser). What is kept lies in schemas
called mathison_kept_<key>_<n>, whose comments say what they were. Casts have no schema: they are dropped, and such a
comment says how to make them again, and how to publish the tables again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from psycopg import sql

from agent.engines.pg.aside.publications import exchange, of_role, published
from agent.engines.pg.aside.schemaless import Cast, app_casts, not_taken_aside
from agent.engines.pg.server.catalog import KEPT_SCHEMA, USER_SCHEMA, WITHOUT_GRANTS, kept_schema_names, no_member
from agent.engines.pg.server.connection import Connection
from agent.versions import not_read
from common.errors import NothingToUndoError, ToolFailedError

OWNED_SEQUENCE = (
    "EXISTS (SELECT FROM pg_depend o WHERE o.classid = 'pg_class'::regclass AND o.objid = c.oid"
    " AND o.refclassid = 'pg_class'::regclass AND o.deptype IN ('a', 'i'))"
)


def _movable() -> str:
    """Query of everything that has a schema and is moved by its own statement: schema, kind, identity, owner."""
    relations = f"""
        SELECT c.relnamespace AS schema, c.relowner AS owner, c.oid::regclass::text AS identity,
               CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                    WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END AS kind
          FROM pg_class c
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND {no_member("pg_class", "c.oid")}
           AND NOT (c.relkind = 'S' AND {OWNED_SEQUENCE})
        UNION ALL
        SELECT p.pronamespace, p.proowner, p.oid::regprocedure::text, 'ROUTINE' FROM pg_proc p
         WHERE {no_member("pg_proc", "p.oid")}
           AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = 'pg_proc'::regclass AND i.objid = p.oid
                              AND i.deptype = 'i')
        UNION ALL
        SELECT t.typnamespace, t.typowner, t.oid::regtype::text, 'TYPE' FROM pg_type t
         WHERE (t.typtype IN ('e', 'd', 'r', 'm') OR t.typtype = 'b' AND t.typcategory <> 'A')
           AND {no_member("pg_type", "t.oid")}
    """  # noqa: S608  # of this module, here and below
    for kind, (catalog, prefix) in WITHOUT_GRANTS.items():
        relations += f"""
        UNION ALL
        SELECT x.{prefix}namespace, x.{prefix}owner,
               (pg_identify_object('{catalog}'::regclass, x.oid, 0)).identity, '{kind}'
          FROM {catalog} x WHERE x.oid >= 16384 AND {no_member(catalog, "x.oid")}
        """  # noqa: S608
    return relations


_MOVABLE = _movable()
_NAMED_BY_TYPES = ("ROUTINE", "OPERATOR")


_VERSION, _VERSION_WITH_CASTS, _VERSION_WITH_PUBLICATIONS = 1, 2, 3
LARGE_OBJECT_PIECE_BYTES = 64 << 20
"""Each is in the server's memory as a whole; a value of a row holds 1 GB."""


class _LabelHead(msgspec.Struct):
    mathison_data: int = _VERSION


class KeptSchema(msgspec.Struct, frozen=True, kw_only=True):
    """The comment on a schema with previous content.

    Attributes:
        of: the schema's own name; empty for the one that holds large objects.
        was_moved: its objects were moved here one by one.
        comment: the schema's own.
        extensions: on the schema for large objects: those that the database had.
        schemas: on the schema for large objects: how many others there are; 0: an older agent did not say.
        casts: on the schema for large objects: statements that make the casts; an agent that does not know them may not
            undo the import.
        publications: on the same: statements that add the tables to publications, likewise.
    """

    mathison_data: int = _VERSION
    of: str
    was_moved: bool
    comment: str | None = None
    extensions: tuple[str, ...] = ()
    schemas: int = 0
    casts: tuple[str, ...] = ()
    publications: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """A schema of the app."""

    name: str
    comment: str | None
    can_be_renamed: bool


def kept_prefix(key: str) -> str:
    """How the names of an import's kept schemas begin."""
    return f"mathison_kept_{key}_"


async def app_schemas(connection: Connection) -> list[Schema]:
    """The app's schemas in the connected database."""
    cursor = await connection.execute(f"""
        SELECT n.nspname, obj_description(n.oid, 'pg_namespace'),
               n.nspname <> 'public' AND pg_has_role(n.nspowner, 'USAGE')
               AND NOT EXISTS (SELECT FROM pg_extension x WHERE x.extnamespace = n.oid)
               AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_depend e
                                 ON e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e'
                                WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid)
          FROM pg_namespace n WHERE {USER_SCHEMA} AND {no_member("pg_namespace", "n.oid")} ORDER BY n.nspname
    """)  # noqa: S608
    return [Schema(*row) for row in await cursor.fetchall()]


async def not_movable(connection: Connection) -> list[str]:
    """Objects that the connected role cannot move.

    Those that are not its own; and range types in a schema that is not renamed, since their constructors belong to the
    superuser and stay behind; and what is in no schema, see `schemaless`.
    """
    moved = [schema.name for schema in await app_schemas(connection) if not schema.can_be_renamed]
    cursor = await connection.execute(
        f"""
        SELECT lower(m.kind) || ' ' || m.identity FROM ({_MOVABLE}) AS m
         WHERE m.schema = ANY(ARRAY(SELECT n.oid FROM pg_namespace n WHERE {USER_SCHEMA}))
           AND NOT pg_has_role(m.owner, 'USAGE')
        UNION ALL
        SELECT 'range type ' || t.oid::regtype FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
         WHERE n.nspname = ANY(%s) AND t.typtype = 'r' AND {no_member("pg_type", "t.oid")}
        UNION ALL
        SELECT 'large object ' || oid FROM pg_largeobject_metadata WHERE NOT pg_has_role(lomowner, 'USAGE')
         ORDER BY 1
        """,  # noqa: S608
        [moved],
    )
    return [*(name for (name,) in await cursor.fetchall()), *await not_taken_aside(connection)]


@dataclass
class Moves:
    """Statements in the order in which each still finds what it names.

    Attributes:
        made: schemas to move into, and what else comes first.
        by_types: routines and operators. They are named by the types of their arguments, which may be of any schema, so
            they go before a type does and before a schema has another name.
        others: everything else that moves, and schemas that are renamed.
        dropped: schemas; what goes with one may be in another.
        made_last: what is made of things that have moved.
    """

    made: list[sql.Composed] = field(default_factory=list)
    by_types: list[sql.Composed] = field(default_factory=list)
    others: list[sql.Composed] = field(default_factory=list)
    dropped: list[sql.Composed] = field(default_factory=list)
    made_last: list[sql.Composed] = field(default_factory=list)

    async def add(self, connection: Connection, source: str, target: str) -> None:
        """All objects of a schema but those of extensions."""
        cursor = await connection.execute(
            f"SELECT m.kind, m.identity FROM ({_MOVABLE}) AS m WHERE m.schema = to_regnamespace(quote_ident(%s))",  # noqa: S608
            [source],
        )
        for kind, identity in await cursor.fetchall():
            statement = sql.SQL("ALTER {} {} SET SCHEMA {}").format(
                sql.SQL(kind), sql.SQL(identity), sql.Identifier(target)
            )
            (self.by_types if kind in _NAMED_BY_TYPES else self.others).append(statement)

    @property
    def statements(self) -> list[sql.Composed]:
        return [*self.made, *self.by_types, *self.others, *self.dropped, *self.made_last]


async def count_moves(connection: Connection) -> int:
    """How much `take_aside` would lock, but for large objects: tables, sequences, and what is moved alone."""
    moved = [schema.name for schema in await app_schemas(connection) if not schema.can_be_renamed]
    cursor = await connection.execute(
        f"""
        SELECT (SELECT count(*) FROM ({_MOVABLE}) AS m JOIN pg_namespace n ON n.oid = m.schema
                 WHERE n.nspname = ANY(%(moved)s))
               + (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE {USER_SCHEMA} AND {no_member("pg_class", "c.oid")}
                     AND (c.relkind = 'S' OR c.relkind IN ('r', 'p') AND n.nspname <> ALL(%(moved)s)))
        """,  # noqa: S608
        {"moved": moved},
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def take_aside(connection: Connection, key: str) -> list[sql.Composed]:
    """Statements that take the app's content aside. The first kept schema holds large objects, if any."""
    prefix = kept_prefix(key)
    moves = Moves()
    schemas = await app_schemas(connection)
    extensions = tuple(await extensions_of(connection))
    casts = await app_casts(connection)
    publications = of_role(await published(connection))
    label = KeptSchema(
        mathison_data=_VERSION_WITH_PUBLICATIONS if publications else _VERSION_WITH_CASTS if casts else _VERSION,
        of="",
        was_moved=False,
        extensions=extensions,
        schemas=len(schemas),
        casts=tuple(statement for cast in casts for statement in cast.making),
        publications=publications,
    )
    moves.made += await _lock([schema.name for schema in schemas if schema.can_be_renamed], connection)
    moves.made += _drop_casts(casts)
    moves.made += [*_make_schema(prefix + "0", label), *_keep_large_objects(prefix + "0")]
    for number, schema in enumerate(schemas, start=1):
        name = prefix + str(number)
        label = KeptSchema(of=schema.name, was_moved=not schema.can_be_renamed, comment=schema.comment)
        if schema.can_be_renamed:
            kept = sql.Identifier(name)
            moves.others.append(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(sql.Identifier(schema.name), kept))
            moves.others.append(_comment(kept, msgspec.json.encode(label).decode()))
        else:
            moves.made += _make_schema(name, label)
            await moves.add(connection, schema.name, name)
    return moves.statements


async def _lock(schemas: Sequence[str], connection: Connection) -> list[sql.Composed]:
    """To rename a schema locks no table, and what the app wrote there meanwhile would be with the previous data."""
    cursor = await connection.execute(
        f"""
        SELECT n.nspname, c.relname, pg_get_userbyid(c.relowner),
               has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE')
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'p') AND {no_member("pg_class", "c.oid")} ORDER BY c.oid
        """,  # noqa: S608
        [schemas],
    )
    lockable: list[sql.Identifier] = []
    statements = []
    for schema, name, owner, may_lock in await cursor.fetchall():
        table = sql.Identifier(schema, name)
        if may_lock:
            lockable.append(table)
        else:
            # An owner that took these privileges from itself may not say LOCK; to give it what it has locks as well.
            statements.append(sql.SQL("ALTER TABLE {} OWNER TO {}").format(table, sql.Identifier(owner)))
    if lockable:
        statements.insert(0, sql.SQL("LOCK TABLE {}").format(sql.SQL(", ").join(lockable)))
    return statements


async def kept_schemas(connection: Connection, key: str) -> list[str]:
    """Names of an import's kept schemas; empty: none."""
    return sorted(await _comments(connection, key))


async def doomed_schemas(connection: Connection, key: str) -> list[str]:
    """Names of schemas with what an import had brought before it was undone."""
    cursor = await connection.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname ~ %s AND starts_with(nspname, %s) ORDER BY nspname",
        [KEPT_SCHEMA, _doomed_prefix(key)],
    )
    return [name for (name,) in await cursor.fetchall()]


def _doomed_prefix(key: str) -> str:
    return f"mathison_drop_{key}_"


async def _comments(connection: Connection, key: str) -> dict[str, str | None]:
    """Of an import's kept schemas."""
    cursor = await connection.execute(
        "SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace"
        " WHERE nspname ~ %s AND starts_with(nspname, %s) ORDER BY nspname",
        [KEPT_SCHEMA, kept_prefix(key)],
    )
    return dict(await cursor.fetchall())


def _read_label(name: str, comment: str | None) -> KeptSchema | None:
    """None where somebody changed it; UnknownVersionError where an agent of another version wrote it."""
    try:
        version = msgspec.json.decode(comment or "", type=_LabelHead).mathison_data
        if version not in (_VERSION, _VERSION_WITH_CASTS, _VERSION_WITH_PUBLICATIONS):
            newest = _VERSION_WITH_PUBLICATIONS
            raise not_read(f"What schema {name} keeps", "", f"it is of version {version}, not {newest}")
        label = msgspec.json.decode(comment or "", type=KeptSchema)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    return label if name.endswith("_0") is not bool(label.of) else None


def require_complete(kept: Mapping[str, KeptSchema | None]) -> None:
    """
    Raises:
        NothingToUndoError: one of an import's kept schemas was dropped.
        ToolFailedError: the comment on one was changed.
    """
    labels = [label for label in kept.values() if label is not None]
    names = [label.of for label in labels]
    if kept and (len(labels) < len(kept) or len(set(names)) < len(names)):
        raise ToolFailedError(
            f"The comments on the schemas with the previous data ({', '.join(kept)}) were changed, and they said what "
            "each of these was.",
            next_step="Move the data back by hand (ALTER SCHEMA ... RENAME TO; ALTER TABLE ... SET SCHEMA public; and "
            "the like), then confirm the import.",
        )
    if not any(not label.of and label.schemas < len(kept) for label in labels):
        raise NothingToUndoError("The schemas with the previous data are gone, or some of them.")


async def kept_keys(connection: Connection) -> set[str]:
    """Keys of the imports that keep previous content in the connected database."""
    # mathison_kept_<key>_<n>
    parts = [name.split("_") for name in await kept_schema_names(connection)]
    return {key for _, kind, key, _ in parts if kind == "kept"}


async def bring_back(connection: Connection, key: str) -> list[sql.Composed]:
    """Statements that take the app's present content aside, into the `doomed_schemas`, and put the kept in its place.

    Raises:
        UnknownVersionError: an agent of another version kept it.
        NothingToUndoError, ToolFailedError: as `require_complete`.
    """
    found = {name: _read_label(name, comment) for name, comment in (await _comments(connection, key)).items()}
    require_complete(found)
    kept = {name: label for name, label in found.items() if label is not None}
    publications = [statement for label in kept.values() for statement in label.publications]
    return [
        *await _doom_present(connection, key, kept),
        *await _put_back(connection, kept),
        exchange(_doomed_prefix(key), publications),
    ]


async def _doom_present(connection: Connection, key: str, kept: Mapping[str, KeptSchema]) -> list[sql.Composed]:
    """To drop it here would take far more locks than to move it, in the one transaction."""
    moved = {label.of for label in kept.values() if label.was_moved}
    moves = Moves()
    schemas = await app_schemas(connection)
    moves.made += await _lock([schema.name for schema in schemas if schema.name not in moved], connection)
    moves.made += _drop_casts(await app_casts(connection))
    for number, schema in enumerate(schemas):
        aside = sql.Identifier(f"{_doomed_prefix(key)}{number}")
        if schema.name not in moved:
            moves.others.append(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(sql.Identifier(schema.name), aside))
        else:
            moves.made.append(sql.SQL("CREATE SCHEMA {}").format(aside))
            await moves.add(connection, schema.name, f"{_doomed_prefix(key)}{number}")
    return moves.statements


async def _put_back(connection: Connection, kept: Mapping[str, KeptSchema]) -> list[sql.Composed]:
    moves = Moves()
    for name, label in kept.items():
        if label.of and label.was_moved:
            await moves.add(connection, name, label.of)
            moves.dropped.append(_drop(name))
        elif label.of:
            original = sql.Identifier(label.of)
            moves.others.append(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(sql.Identifier(name), original))
            moves.others.append(_comment(original, label.comment))
        else:
            new = [one for one in await extensions_of(connection) if one not in label.extensions]
            moves.made += [sql.SQL("DROP EXTENSION IF EXISTS {} CASCADE").format(sql.Identifier(one)) for one in new]
            moves.made += _restore_large_objects(name)
            if await _knows_owners(connection, name):
                moves.made.append(give_large_objects(name))
            moves.dropped.append(_drop(name))
            moves.made_last += [sql.SQL(statement).format() for statement in label.casts]
    return moves.statements


async def extensions_of(connection: Connection) -> list[str]:
    """Extensions of the connected database."""
    cursor = await connection.execute("SELECT extname FROM pg_extension ORDER BY extname")
    return [name for (name,) in await cursor.fetchall()]


def _drop_casts(casts: Sequence[Cast]) -> list[sql.Composed]:
    return [sql.SQL("DROP {}").format(sql.SQL(cast.name)) for cast in casts]


def _make_schema(name: str, label: KeptSchema) -> list[sql.Composed]:
    identifier = sql.Identifier(name)
    return [
        sql.SQL("CREATE SCHEMA {}").format(identifier),
        _comment(identifier, msgspec.json.encode(label).decode()),
        sql.SQL(_CLOSE_SCHEMA).format(name=name),
    ]


_CLOSE_SCHEMA = """DO $do$ DECLARE who text; BEGIN
FOR who IN
    SELECT DISTINCT coalesce(nullif(x.grantee, 0)::regrole::text, 'PUBLIC')
      FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) AS x WHERE n.nspname = {name} AND x.grantee <> n.nspowner
LOOP
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %s', {name}, who);
END LOOP; END $do$"""
"""Default privileges may have opened it."""


def _comment(schema: sql.Identifier, text: str | None) -> sql.Composed:
    return sql.SQL("COMMENT ON SCHEMA {} IS {}").format(schema, sql.Literal(text))


def _drop(schema: str) -> sql.Composed:
    return sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema))


def _keep_large_objects(schema: str) -> Sequence[sql.Composed]:
    """They have no schema, and the import brings the same numbers; so their content becomes rows, in pieces: a row
    holds less than a large object may. The first says whose it is and who may use it, where that is not the usual.
    """
    table = sql.Identifier(schema, "large_objects")
    return [
        sql.SQL("CREATE TABLE {} (number oid, content bytea, comment text, owner oid, rights jsonb)").format(table),
        sql.SQL(_KEEP_PIECES).format(table=table, piece=LARGE_OBJECT_PIECE_BYTES),
        sql.SQL("SELECT lo_unlink(oid) FROM pg_largeobject_metadata").format(),
    ]


_KEEP_PIECES = """DO $do$ DECLARE one record; opened int; size bigint; BEGIN
FOR one IN
    SELECT oid, obj_description(oid, 'pg_largeobject') AS comment,
           CASE WHEN lomacl IS NOT NULL OR pg_get_userbyid(lomowner) <> current_user THEN lomowner END AS owner,
           CASE WHEN lomacl IS NOT NULL
                THEN (SELECT coalesce(jsonb_agg(x), '[]') FROM aclexplode(lomacl) AS x) END AS rights
      FROM pg_largeobject_metadata
LOOP
    opened := lo_open(one.oid, 262144);
    size := lo_lseek64(opened, 0, 2);
    PERFORM lo_close(opened);
    INSERT INTO {table} SELECT one.oid, lo_get(one.oid, start, {piece}), CASE start WHEN 0 THEN one.comment END,
           CASE start WHEN 0 THEN one.owner END, CASE start WHEN 0 THEN one.rights END
      FROM generate_series(0, greatest(size - 1, 0), {piece}) AS start;
END LOOP; END $do$"""
"""262144 is INV_READ, and 2 SEEK_END: a size is known by no other way."""


def give_large_objects(schema: str) -> sql.Composed:
    """The statement that gives large objects, those of now, the owners and rights that those of the same numbers had.

    Args:
        schema: the kept one that holds large objects.
    """
    return sql.SQL(_GIVE).format(table=sql.Identifier(schema, "large_objects"))


_GIVE = """DO $do$ DECLARE one record; gift text; BEGIN
FOR one IN
    SELECT k.number, k.owner, k.rights, quote_ident(pg_get_userbyid(k.owner)) AS name FROM {table} AS k
     WHERE k.owner IS NOT NULL AND EXISTS (SELECT FROM pg_largeobject_metadata WHERE oid = k.number)
LOOP
    FOR gift IN
        SELECT format('ALTER LARGE OBJECT %s OWNER TO %s', one.number, one.name)
         WHERE pg_get_userbyid(one.owner) <> current_user
        UNION ALL SELECT format('REVOKE ALL ON LARGE OBJECT %s FROM PUBLIC, %s', one.number, one.name)
         WHERE one.rights IS NOT NULL
        UNION ALL SELECT format('GRANT %s ON LARGE OBJECT %s TO %s%s', x.privilege_type, one.number,
                                CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
                                CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
          FROM jsonb_to_recordset(one.rights) AS x (grantee oid, privilege_type text, is_grantable bool)
         WHERE x.privilege_type IN ('SELECT', 'UPDATE')
    LOOP
        BEGIN EXECUTE gift;
        EXCEPTION WHEN insufficient_privilege OR undefined_object THEN NULL;
        END;
    END LOOP;
END LOOP; END $do$"""
"""A role that is gone gets nothing."""


async def _knows_owners(connection: Connection, schema: str) -> bool:
    """Whether a kept schema says whose large objects were; an earlier agent's does not."""
    cursor = await connection.execute(
        "SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = 'large_objects' AND a.attname = 'rights'",
        [schema],
    )
    return await cursor.fetchone() is not None


def _restore_large_objects(schema: str) -> Sequence[sql.Composed]:
    """Where a piece begins is told by those before it; an earlier agent kept each large object in one."""
    table = sql.Identifier(schema, "large_objects")
    comments = (
        "DO $do$ DECLARE one record; BEGIN FOR one IN SELECT number, comment FROM {} WHERE comment IS NOT NULL LOOP"
        " EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', one.number, one.comment); END LOOP; END $do$"
    )
    pieces = (
        "SELECT lo_put(number, start, content) FROM (SELECT number, content, coalesce(sum(octet_length(content)) OVER"
        " (PARTITION BY number ORDER BY ctid ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)::bigint AS start"
        " FROM {}) AS pieces"
    )
    return [
        sql.SQL("SELECT lo_unlink(oid) FROM pg_largeobject_metadata").format(),
        sql.SQL("SELECT lo_create(number) FROM (SELECT DISTINCT number FROM {}) AS numbers").format(table),
        sql.SQL(pieces).format(table),
        sql.SQL(comments).format(table),
    ]
