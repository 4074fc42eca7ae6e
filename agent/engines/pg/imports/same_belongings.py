"""Whether the app's database still has what was carried over from it when an import was staged.

What somebody changes there before the restore (an owner, a grant, a setting) would be lost with the exchange.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from agent.engines.pg.belongings.read import OF_OWNERS, Belongings, Thing
from agent.engines.pg.belongings.system_grants import SystemGrants
from common.errors import AppUnavailableError

_WORDS = {
    "owner": "the database's owner",
    "options": "its connection limit, or whether it is a template",
    "grants": "grants on it",
    "settings": "settings of it or of roles in it",
    "labels": "its security labels",
    "default grants": "default grants",
    "content": "owners or grants of what is in it",
    "other owners": "owners of collations, operators, conversions, publications, statistics or text search objects",
    "system grants": "grants on what is an extension's or the server's own",
}


def sums_of(belongings: Belongings, things: Sequence[Thing], system_grants: SystemGrants) -> dict[str, str]:
    """For each part a short sum; equal for equal belongings.

    Args:
        things: those that the import has as well.
        system_grants: all of them.
    """
    database = belongings.database
    parts: dict[str, Iterable[object]] = {
        "owner": [database.owner],
        "options": [database.connection_limit, database.is_template],
        "grants": ["default"]
        if belongings.database_grants is None
        else [*belongings.database_grants, *belongings.database_withheld],
        "settings": belongings.settings,
        "labels": belongings.labels,
        "default grants": [
            (one.role, one.schema, one.kind, _sum([*one.grants, *one.withheld])) for one in belongings.default_grants
        ],
        "content": [
            belongings.content_owner,
            *((one.kind, one.identity, one.owner, _sum_of_grants(one)) for one in things if one.kind not in OF_OWNERS),
        ],
        # Apart from the others, since an earlier agent staged without these.
        "other owners": [(one.kind, one.identity, one.owner) for one in things if one.kind in OF_OWNERS],
        "system grants": [(place, _sum(grants)) for place, grants in system_grants.items()],
    }
    return {name: _sum(values) for name, values in parts.items()}


def _sum_of_grants(thing: Thing) -> str | None:
    return None if thing.grants is None else _sum([*thing.grants, *thing.withheld])


def _sum(values: Iterable[object]) -> str:
    return hashlib.sha256(b"\n".join(sorted(msgspec.json.encode(value) for value in values))).hexdigest()[:16]


def require_same(staged: Mapping[str, str], now: Mapping[str, str], *, database: str) -> None:
    """
    Args:
        staged: an earlier agent knew fewer parts, or called by another name what it looked at less closely.
    Raises:
        AppUnavailableError: something is not as it was carried over; says what.
    """
    changed = [words for name, words in _WORDS.items() if name in staged and staged[name] != now.get(name)]
    if changed:
        raise AppUnavailableError(
            f"Since the import was staged, something changed at the app's database {database} that it would lose: "
            f"{'; '.join(changed)}.",
            next_step="Import the file again: what is carried over is read when it is staged.",
        )
