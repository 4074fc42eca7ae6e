"""Who a login is, and what it may do in a database.

The one fact to know: a server does not add up what is granted. Of the grants on databases whose names fit, the one with
the most exact name counts and no other, names with wildcards included, and MySQL takes rights on everything back for
single databases (`partial_revokes`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence, Set

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
_SUPER = ("SUPER", "BINLOG ADMIN")
_ROLE = "a role"
_OF_LOGIN = "REPLACE(GRANTEE, '''', '') = REPLACE(CURRENT_USER(), '''', '')"
_ALL = frozenset((*_SEEING, *_SEEING_ROUTINES, *_SUPER, *(right for rights in _RIGHTS.values() for right in rights)))
"""Those that are asked about."""
_NAME = r"`(?:[^`]|``)*`"
_GRANT = re.compile(
    rf"GRANT (?P<rights>[A-Z, _]+) ON (?:\*|(?P<schema>{_NAME}))\.\* TO (?P<grantee>{_NAME}(?:@{_NAME})?)", re.DOTALL
)
_REVOKE = re.compile(rf"REVOKE (?P<rights>.+) ON (?P<schema>{_NAME})\.\* FROM ", re.DOTALL)
_ESCAPE_OR_WILDCARD = re.compile(rb"\\(.)|([%_])|.", re.DOTALL)
_WILDCARDS = {b"%": b".*", b"_": b"."}
_EXACT = 128


class Account(msgspec.Struct, frozen=True):
    """Who a login is.

    Attributes:
        name: in the way the catalogs write definers.
        granted: its rights in a database, those of its roles too; one that has a role has "a role", since not all is
            seen of what that may give: rights on single tables and routines.
    """

    name: str
    granted: frozenset[str]

    @property
    def has_role(self) -> bool:
        return _ROLE in self.granted

    @property
    def may_be_super(self) -> bool:
        return not self.granted.isdisjoint((*_SUPER, _ROLE))

    def lacks(self, kinds: Collection[str]) -> list[str]:
        """Of what it needs to make these kinds, what nobody has granted it."""
        if self.has_role:
            return []
        return sorted({right for kind in kinds for right in _RIGHTS[kind]} - self.granted)

    @property
    def sees_all(self) -> bool:
        """Whether it is proven that nothing of the database is hidden from it."""
        return not self.lacks_to_see

    @property
    def lacks_to_see(self) -> list[str]:
        """What would prove that it sees all of the database, and nobody has granted it."""
        lacking = [right for right in _SEEING if right not in self.granted]
        return [*lacking, _SEEING_ROUTINES[0]] if self.granted.isdisjoint(_SEEING_ROUTINES) else lacking


async def account_of(login: Login, database: str) -> Account:
    """As whom the server sees a login, and what it may do in a database."""
    [[name, role, folds_case, revokes], *rows] = await query(
        login,
        "SELECT CURRENT_USER(), COALESCE(CURRENT_ROLE(), 'NONE'), @@lower_case_table_names <> 0,"  # noqa: S608  # ours
        " 0 /*!80016 + @@partial_revokes */;"
        " SELECT PRIVILEGE_TYPE, GRANTEE FROM information_schema.USER_PRIVILEGES"
        f" WHERE {_OF_LOGIN};"
        " SELECT PRIVILEGE_TYPE, GRANTEE, TABLE_SCHEMA FROM information_schema.SCHEMA_PRIVILEGES"
        f" WHERE {_OF_LOGIN};",
    )
    user, _, host = name.rpartition("@")
    own = [(right, *schema) for right, grantee, *schema in rows if grantee in (f"'{user}'@'{host}'", name)]
    has_role, is_literal = role != "NONE", revokes != "0"
    told = [grant for [grant] in await query(login, "SHOW GRANTS;")] if has_role or is_literal else []
    revoked = _revoked(told, database)
    granted: frozenset[str] = frozenset()
    # Each role counts by itself; MySQL tells of all of them as of the account.
    for rights in (own, *(_by_grantee(told).values() if has_role else ())):
        granted |= _in_effect(rights, database, folds_case=folds_case == "1", is_literal=is_literal, revoked=revoked)
    return Account(name, granted | {_ROLE} if has_role else granted)


def _in_effect(
    granted: Collection[Sequence[str]], database: str, *, folds_case: bool, is_literal: bool, revoked: Set[str]
) -> frozenset[str]:
    """What somebody may do in a database, of what is granted: rights, each with a pattern of databases or without."""
    by_pattern: dict[str, set[str]] = {}
    everywhere = {right for right, *schema in granted if not schema} - revoked
    for right, *schema in granted:
        for pattern in schema:
            by_pattern.setdefault(pattern.lower() if folds_case else pattern, set()).add(right)
    return frozenset(
        everywhere | _most_exact(by_pattern, database.lower() if folds_case else database, is_literal=is_literal)
    )


def _by_grantee(told: Iterable[str]) -> Mapping[str, Sequence[Sequence[str]]]:
    """What SHOW GRANTS tells of databases, as `_in_effect` takes it, for each account and role."""
    found: dict[str, list[Sequence[str]]] = {}
    for grant in filter(None, map(_GRANT.match, told)):
        rights = _ALL if grant["rights"] == "ALL PRIVILEGES" else re.split(", ?", grant["rights"])
        schema = (plain(grant["schema"]),) if grant["schema"] else ()
        found.setdefault(grant["grantee"], []).extend((right, *schema) for right in rights)
    return found


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
