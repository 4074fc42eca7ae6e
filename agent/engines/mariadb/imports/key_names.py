"""Names of foreign keys, of which a schema may have each but once.

While tables with triggers stand aside, tables of both sides are in the app's schema, often with keys of the same names.
Then those of the imported side give way: they are called otherwise until the others have left. They hold all the while:
the server gives a key another name in one step, without looking at rows (`foreign_key_checks=0`). The one fact to know:
names that the server makes (`child_ibfk_1`) follow their table in a RENAME by themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from agent.engines.mariadb.imports.notes import Notes, names_in, numbered
from agent.engines.mariadb.names import is_stand_in, quoted, stand_in
from agent.engines.mariadb.server.client import of_schema, query
from agent.engines.mariadb.server.settings import Login

_FACT = "key_names"
_DEFAULT_RULE = "RESTRICT"


@dataclass(frozen=True)
class _Key:
    """A foreign key.

    Attributes:
        parent: schema and table.
        columns: the child's with the parent's.
    """

    name: str
    table: str
    parent: tuple[str, str]
    columns: tuple[tuple[str, str], ...]
    on_update: str
    on_delete: str

    @property
    def follows_its_table(self) -> bool:
        return self.name.lower().startswith(f"{self.table}_ibfk_".lower())

    def renamed(self, name: str) -> str:
        """The parts of an ALTER TABLE that do it."""
        own, others = (", ".join(map(quoted, side)) for side in zip(*self.columns, strict=True))
        rules = "".join(
            f" ON {event} {rule}"
            for event, rule in (("DELETE", self.on_delete), ("UPDATE", self.on_update))
            if rule != _DEFAULT_RULE
        )
        return (
            f"DROP FOREIGN KEY {quoted(self.name)}, ADD CONSTRAINT {quoted(name)} FOREIGN KEY ({own})"
            f" REFERENCES {'.'.join(map(quoted, self.parent))} ({others}){rules}"
        )


async def give_way(admin: Login, notes: Notes, *, imported: str, previous: str, concerned: Collection[str]) -> None:
    """Give keys of the imported tables other names where the previous ones have the same.

    Args:
        imported, previous: the schemas in which both are now.
        concerned: the tables of either side that will be in the app's schema beside the other's.
    Raises:
        AppBusyError: a table is in use.
    """
    theirs = defaultdict(list)
    for key in await _keys_of(admin, previous):
        theirs[key.name.lower()].append(key)
    giving = [
        key
        for key in await _keys_of(admin, imported)
        for other in theirs[key.name.lower()]
        if (key.table in concerned or other.table in concerned)
        and not (key.follows_its_table and other.follows_its_table)
    ]
    numbers = numbered(notes, _FACT, [key.name for key in giving]) if giving else {}
    await _rename(admin, imported, {key: stand_in(notes.key, numbers[key.name]) for key in giving})


async def take_back(admin: Login, notes: Notes, schema: str) -> None:
    """Give keys that gave way their names again. Repeating it changes nothing.

    Raises:
        AppBusyError: a table is in use.
    """
    if not (known := names_in(notes, _FACT)):
        return
    by_stand_in = {stand_in(notes.key, number): name for number, name in enumerate(known)}
    found = [key for key in await _keys_of(admin, schema) if is_stand_in(key.name, notes.key)]
    await _rename(admin, schema, {key: by_stand_in[key.name] for key in found})


async def _rename(admin: Login, schema: str, named: Mapping[_Key, str]) -> None:
    changes = defaultdict(list)
    for key, name in named.items():
        changes[key.table].append(key.renamed(name))
    if changes:
        await query(
            admin,
            "SET SESSION foreign_key_checks = 0 /*M!100304 , system_versioning_alter_history = KEEP */;"
            + "".join(
                f" ALTER TABLE {quoted(schema)}.{quoted(table)} {', '.join(parts)};" for table, parts in changes.items()
            ),
            is_apart=True,
        )


async def _keys_of(admin: Login, schema: str) -> list[_Key]:
    rows = await query(
        admin,
        "SELECT 'column', TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_COLUMN_NAME,"  # noqa: S608  # a literal
        " REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE"
        f" WHERE {of_schema('TABLE_SCHEMA', schema)} AND REFERENCED_TABLE_NAME IS NOT NULL"
        " ORDER BY TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION;"
        " SELECT 'rules', TABLE_NAME, CONSTRAINT_NAME, UPDATE_RULE, DELETE_RULE"
        f" FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE {of_schema('CONSTRAINT_SCHEMA', schema)};",
    )
    columns, parents = defaultdict(list), {}
    for table, name, own, other, *parent in (row[1:] for row in rows if row[0] == "column"):
        columns[table, name].append((own, other))
        parents[table, name] = (parent[0], parent[1])
    return [
        _Key(name, table, parents[table, name], tuple(columns[table, name]), on_update, on_delete)
        for table, name, on_update, on_delete in (row[1:] for row in rows if row[0] == "rules")
        if (table, name) in columns
    ]
