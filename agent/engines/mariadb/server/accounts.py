"""Who a login is, and what it may do in a database.

The one fact to know: a server does not add up what is granted. Of the grants on databases whose names fit, the one with
the most exact name counts and no other, names with wildcards included, and MySQL takes rights on everything back for
single databases (`partial_revokes`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Set

import msgspec

from agent.engines.mariadb.names import plain
from agent.engines.mariadb.server.client import query
from agent.engines.mariadb.server.settings import Login

_SEEING = ("SELECT", "TRIGGER", "EVENT")
"""Without one of these on a database, or all of `_SEEING_ROUTINES`, the server says nothing of some that is in it."""
_SEEING_ROUTINES = ("EXECUTE", "CREATE ROUTINE", "ALTER ROUTINE")
_RIGHTS = {
    "function": ("CREATE ROUTINE", "ALTER ROUTINE"),
    "procedure": ("CREATE ROUTINE", "ALTER ROUTINE"),
    "view": ("CREATE VIEW", "SHOW VIEW", "DROP"),
    "trigger": ("TRIGGER", "LOCK TABLES", "SELECT"),
    "event": ("EVENT",),
}
_ROLE = "a role"
_OF_LOGIN = "REPLACE(GRANTEE, '''', '') = REPLACE(CURRENT_USER(), '''', '')"
_REVOKE = re.compile(r"REVOKE (?P<rights>.+) ON (?P<schema>`(?:[^`]|``)*`)\.\* FROM ", re.DOTALL)
_ESCAPE_OR_WILDCARD = re.compile(rb"\\(.)|([%_])|.", re.DOTALL)
_WILDCARDS = {b"%": b".*", b"_": b"."}
_EXACT = 128


class Account(msgspec.Struct, frozen=True):
    """Who a login is.

    Attributes:
        name: in the way the catalogs write definers.
        granted: its rights in a database; one that has roles, which are not looked into, has "a role".
    """

    name: str
    granted: frozenset[str]

    @property
    def has_role(self) -> bool:
        return _ROLE in self.granted

    @property
    def may_be_super(self) -> bool:
        return not self.granted.isdisjoint({"SUPER", "BINLOG ADMIN", _ROLE})

    def lacks(self, kinds: Collection[str]) -> list[str]:
        """Of what it needs to make these kinds, what nobody has granted it."""
        if self.has_role:
            return []
        return sorted({right for kind in kinds for right in _RIGHTS[kind]} - self.granted)

    @property
    def sees_all(self) -> bool:
        """Whether nothing of the database is hidden from it, as far as anybody has looked."""
        return self.has_role or not self.lacks_to_see

    @property
    def lacks_to_see(self) -> list[str]:
        """What would prove that it sees all of the database, and nobody has granted it."""
        lacking = [right for right in _SEEING if right not in self.granted]
        return [*lacking, _SEEING_ROUTINES[0]] if self.granted.isdisjoint(_SEEING_ROUTINES) else lacking


async def account_of(login: Login, database: str) -> Account:
    """As whom the server sees a login, and what it may do in a database."""
    [[name, folds_case, revokes], *rows] = await query(
        login,
        "SELECT CURRENT_USER(), @@lower_case_table_names <> 0, 0 /*!80016 + @@partial_revokes */;"  # noqa: S608  # ours
        " SELECT PRIVILEGE_TYPE, GRANTEE FROM information_schema.USER_PRIVILEGES"
        f" WHERE {_OF_LOGIN};"
        " SELECT PRIVILEGE_TYPE, GRANTEE, TABLE_SCHEMA FROM information_schema.SCHEMA_PRIVILEGES"
        f" WHERE {_OF_LOGIN};"
        f" SELECT '{_ROLE}', CURRENT_USER() FROM DUAL WHERE COALESCE(CURRENT_ROLE(), 'NONE') <> 'NONE';",
    )
    user, _, host = name.rpartition("@")
    rows = [[right, *schema] for right, grantee, *schema in rows if grantee in (f"'{user}'@'{host}'", name)]
    everywhere = {right for right, *schema in rows if not schema}
    by_pattern: dict[str, set[str]] = {}
    for right, *schema in rows:
        for pattern in schema:
            by_pattern.setdefault(pattern, set()).add(right)
    if folds_case == "1":
        by_pattern = {pattern.lower(): rights for pattern, rights in by_pattern.items()}
        database = database.lower()
    if is_literal := revokes != "0":
        everywhere -= _revoked([grant for [grant] in await query(login, "SHOW GRANTS;")], database)
    return Account(name, frozenset(everywhere | _most_exact(by_pattern, database, is_literal=is_literal)))


def _most_exact(by_pattern: Mapping[str, Set[str]], database: str, *, is_literal: bool) -> Set[str]:
    """The rights that count of those granted on databases whose names fit; of several names as exact, what all give."""
    exactness = {pattern: _exactness(pattern, database, is_literal=is_literal) for pattern in by_pattern}
    best = max(exactness.values(), default=0)
    counting = [rights for pattern, rights in by_pattern.items() if best and exactness[pattern] == best]
    return frozenset.intersection(*map(frozenset, counting)) if counting else frozenset()


def _revoked(grants: Iterable[str], database: str) -> frozenset[str]:
    """What SHOW GRANTS says to be taken back for a database."""
    found = [revoke for grant in grants if (revoke := _REVOKE.match(grant))]
    rights = [revoke["rights"].split(", ") for revoke in found if plain(revoke["schema"]) == database]
    return frozenset(right.strip() for listed in rights for right in listed)


def _exactness(pattern: str, database: str, *, is_literal: bool) -> int:
    """How exactly a grant names a database, as servers reckon it; 0: it does not.

    Args:
        is_literal: its wildcards mean themselves.
    """
    regex = b""
    first_wildcard = 0
    for found in _ESCAPE_OR_WILDCARD.finditer(pattern.encode(errors="surrogateescape")):
        if found[2] and not is_literal:
            regex += _WILDCARDS[found[2]]
            first_wildcard = first_wildcard or found.start() + 1
        else:
            regex += re.escape(found[1] or found[0])
    if not re.fullmatch(regex, database.encode(errors="surrogateescape"), re.DOTALL):
        return 0
    return min(first_wildcard, _EXACT - 1) if first_wildcard else _EXACT
