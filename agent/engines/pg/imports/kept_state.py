"""What an import within the app's database moved aside, as its server has it: to see whether a file's code changed it.

Code of a file runs with the rights of the owner of what was moved aside, so nothing is forbidden to it there. But every
change of an object writes a row of the system's catalogs, and a row that is written has another place or writer. So all
rows that belong to what was moved aside are compared by those, whatever they say. Some of them other sessions can write
meanwhile, as with a CREATE TABLE in a schema that was renamed; who wrote a row is seen while the transaction runs, but
not who deleted one that it had not written. Names are qualified: a session's
temporary tables would come before the catalogs.
"""

from __future__ import annotations

from psycopg import sql

from agent.engines.pg.server.text_errors import MARK

_BY_OBJECT = {
    "oid": (
        *("pg_namespace", "pg_class", "pg_type", "pg_proc", "pg_constraint", "pg_trigger", "pg_rewrite", "pg_policy"),
        *("pg_attrdef", "pg_operator", "pg_opclass", "pg_opfamily", "pg_amop", "pg_amproc", "pg_collation", "pg_cast"),
        *("pg_conversion", "pg_ts_dict", "pg_ts_config", "pg_statistic_ext", "pg_transform", "pg_publication_rel"),
        "pg_default_acl",
    ),
    "objid": ("pg_depend",),
    "objoid": ("pg_description", "pg_seclabel", "pg_init_privs"),
    "attrelid": ("pg_attribute",),
    "indexrelid": ("pg_index",),
    "seqrelid": ("pg_sequence",),
    "inhrelid": ("pg_inherits",),
    "partrelid": ("pg_partitioned_table",),
    "ftrelid": ("pg_foreign_table",),
    "enumtypid": ("pg_enum",),
    "rngtypid": ("pg_range",),
    "aggfnoid": ("pg_aggregate",),
    "mapcfg": ("pg_ts_config_map",),
}
"""Catalogs by the column that says of which object a row is."""
_CLASSES = {
    "objid": "c.classid",
    "objoid": "c.classoid",
    "enumtypid": "'pg_catalog.pg_type'::pg_catalog.regclass::oid",
    "rngtypid": "'pg_catalog.pg_type'::pg_catalog.regclass::oid",
    "aggfnoid": "'pg_catalog.pg_proc'::pg_catalog.regclass::oid",
    "mapcfg": "'pg_catalog.pg_ts_config'::pg_catalog.regclass::oid",
}
"""In which catalog the column's object is, since two of different catalogs may have one number; else `_class_of`."""
_BESIDE = {
    "pg_namespace": "schemas",
    "pg_extension": "extensions",
    "pg_language": "languages",
    "pg_cast": "casts",
    "pg_transform": "transforms",
}
_PREVIOUS = "the previous data"
_WRITTEN_BEFORE = "c.xmin::text <> pg_catalog.pg_current_xact_id()::xid::text"
_NO_SESSIONS = {"pg_namespace": " AND c.nspname !~ '^pg_'"}
"""Catalogs of what is not moved, to which a file adds and in which it changes nothing."""
_ROW = "pg_catalog.concat_ws(' ', c.tableoid, c.ctid, c.xmin)"
_IS_OWN = """CASE WHEN pg_catalog.age(c.xmin) <= 0 THEN pg_catalog.pg_xact_status((pg_catalog.pg_current_xact_id()::text
    ::bigint - pg_catalog.age(c.xmin))::text::pg_catalog.xid8) = 'in progress' ELSE false END"""
"""Written by this transaction or a part of it: what is seen of one that has not ended is one's own."""
_ROWS = """
    WITH RECURSIVE kept (class, number) AS (
        SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass::oid, oid FROM pg_catalog.pg_namespace
         WHERE pg_catalog.starts_with(nspname, {prefix})
        UNION SELECT d.classid, d.objid FROM kept
          JOIN pg_catalog.pg_depend d ON d.refclassid = kept.class AND d.refobjid = kept.number
    ), found (what, place, is_own) AS ({parts})
    SELECT pg_catalog.concat_ws({mark}, what, coalesce(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
           pg_catalog.string_agg(place, ',' ORDER BY place) FILTER (WHERE is_own), 'UTF8')), 'hex'), ''),
           pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
           pg_catalog.string_agg(place, ',' ORDER BY place), 'UTF8')), 'hex')) FROM found GROUP BY what"""
_LARGE_OBJECTS = """
    SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(coalesce(
           pg_catalog.string_agg(pg_catalog.concat_ws(' ', ctid, xmin, cmin), ',' ORDER BY ctid), ''), 'UTF8')), 'hex')
      FROM {}"""
"""Of a table that this transaction made: emptied and filled again, its rows differ in nothing but the command."""
_CHANGED = (
    "pg_catalog.pg_stat_get_xact_tuples_inserted({0}) + pg_catalog.pg_stat_get_xact_tuples_updated({0})"
    " + pg_catalog.pg_stat_get_xact_tuples_deleted({0}) <> 0"
)
_KEPT_SEQUENCES = """
    SELECT s.seqrelid, s.seqrelid::regclass AS name, s.seqcache FROM pg_catalog.pg_sequence s
      JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE pg_catalog.starts_with(n.nspname, {prefix})"""

_OWN_SEQUENCES = (
    "DO $own$ DECLARE one record; BEGIN FOR one IN "
    + _KEPT_SEQUENCES
    + " LOOP EXECUTE pg_catalog.format('ALTER SEQUENCE %s CACHE %s', one.name, one.seqcache); END LOOP; END $own$"
)
_QUERIES = (
    "SELECT {rows} UNION ALL SELECT {large_objects} UNION ALL SELECT pg_catalog.format("  # noqa: S608
    "'SELECT pg_catalog.concat_ws('' '', %s, last_value, is_called) FROM %s', one.seqrelid, one.name)"
    " FROM (" + _KEPT_SEQUENCES + " ORDER BY s.seqrelid) AS one"
)


def changes_are_counted() -> sql.SQL:
    """The statement that fails, with another error than what a file did, where the session does not count changes."""
    return sql.SQL(_COUNTED)


def own_sequences(prefix: str) -> sql.Composed:
    """The statement that gives each kept sequence a file that this transaction has made.

    Values of sequences are no part of a transaction, but such a file is: what a file's code sets there is gone when the
    transaction is, and until its end nobody else takes a value.
    """
    return sql.SQL(_OWN_SEQUENCES).format(prefix=prefix)


def state_queries(prefix: str) -> sql.Composed:
    """A query of queries, whose answers stay the same as long as nobody changes what was moved aside.

    Those with `MARK` are of rows that other sessions can write too: of what, a sum of those that this transaction
    wrote, and one of all.
    """
    return sql.SQL(_QUERIES).format(
        rows=sql.Literal(_rows(prefix).as_string(None)),
        large_objects=sql.Literal(_large_objects(prefix).as_string(None)),
        prefix=prefix,
    )


def _rows(prefix: str) -> sql.Composed:
    kept = [
        f"SELECT '{_PREVIOUS}', {_ROW}, {_IS_OWN} FROM pg_catalog.{catalog} c"  # noqa: S608  # of this module
        f" WHERE ({_class_of(column, catalog)}, c.{column}::oid) IN (SELECT class, number FROM kept)"
        for column, catalogs in _BY_OBJECT.items()
        for catalog in catalogs
    ]
    beside = [
        f"SELECT '{what}', {_ROW}, {_IS_OWN} FROM pg_catalog.{catalog} c"  # noqa: S608
        f" WHERE {_WRITTEN_BEFORE}{_NO_SESSIONS.get(catalog, '')}"
        for catalog, what in _BESIDE.items()
    ]
    parts = sql.SQL(" UNION ALL ").join(map(sql.SQL, [*kept, *beside]))
    return sql.SQL(_ROWS).format(prefix=prefix, mark=MARK, parts=parts)


def _class_of(column: str, catalog: str) -> str:
    own = catalog if column == "oid" else "pg_class"
    return _CLASSES.get(column, f"'pg_catalog.{own}'::pg_catalog.regclass::oid")


def _large_objects(prefix: str) -> sql.Composed:
    return sql.SQL(_LARGE_OBJECTS).format(sql.Identifier(prefix + "0", "large_objects"))


_END_OF_CODE = """DO $end$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT c.oid::regclass AS name, pg_catalog.pg_get_userbyid(c.relowner) AS owner
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgdeferrable)
           AND pg_catalog.pg_has_role(c.relowner, 'USAGE') AND NOT pg_catalog.starts_with(n.nspname, {prefix})
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s OWNER TO %I', one.name, one.owner);
    END LOOP;
EXCEPTION WHEN object_in_use THEN
    RAISE EXCEPTION 'the file has triggers that wait for the commit over and over';
END $end$"""
"""An ALTER TABLE that changes nothing; it fails while a trigger of the table is still to run. Of what was moved aside
none is, unless a row was changed there.
"""
_COUNTED = """DO $counted$
BEGIN
    IF pg_catalog.current_setting('track_counts') <> 'on' THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'track_counts is off, so the server does not say which rows were changed';
    END IF;
END $counted$"""
_NO_ROWS_CHANGED = """DO $rows$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE pg_catalog.starts_with(n.nspname, {prefix}) AND c.relkind IN ('r', 'm')
                  AND (n.nspname, c.relname) <> ({large_objects}, 'large_objects') AND {changes_there})
    THEN
        RAISE EXCEPTION 'the file touched the previous data';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.unnest({shared}::text[]) AS name,
                           pg_catalog.to_regclass('pg_catalog.' || name) AS shared WHERE {changes_of_shared})
    THEN
        RAISE EXCEPTION 'the file changed roles or databases';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.unnest({others}::text[]) AS name,
                           pg_catalog.to_regclass('pg_catalog.' || name) AS other WHERE {changes_of_others})
    THEN
        RAISE EXCEPTION 'the file changed publications, foreign servers or default privileges';
    END IF;
END $rows$"""
_SHARED = ["pg_authid", "pg_auth_members", "pg_database", "pg_db_role_setting"]
_OTHERS = [
    *("pg_default_acl", "pg_publication", "pg_publication_rel", "pg_publication_namespace", "pg_event_trigger"),
    *("pg_foreign_server", "pg_foreign_data_wrapper", "pg_user_mapping"),
]
"""Nothing that a file is allowed to state writes there; not every major has each."""


def end_of_code(prefix: str) -> list[sql.Composable]:
    """Statements after which no code of the file runs any more, and which fail where it changed rows.

    What waits for the commit runs now: triggers, which may not wait again, and queries of cursors that would outlive
    the transaction, which are closed instead.
    """
    return [
        sql.SQL("SET CONSTRAINTS ALL IMMEDIATE"),
        sql.SQL("CLOSE ALL"),
        changes_are_counted(),
        sql.SQL(_END_OF_CODE).format(prefix=prefix),
        sql.SQL(_NO_ROWS_CHANGED).format(
            prefix=prefix,
            large_objects=prefix + "0",
            changes_there=sql.SQL(_CHANGED.format("c.oid")),
            shared=_SHARED,
            changes_of_shared=sql.SQL(_CHANGED.format("shared")),
            others=_OTHERS,
            changes_of_others=sql.SQL(_CHANGED.format("other")),
        ),
    ]
