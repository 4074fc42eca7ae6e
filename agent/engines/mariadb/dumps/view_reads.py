"""Which tables and views a view reads and where it names its schema, told from its text as the server writes it.

The facts to know: what a WITH makes is called as tables are, and may be called as one of them. It is known from the
end of its own text on (of a recursive one: from its beginning), within the parentheses that its WITH stands in. The
server writes its name there without quotes (10.11). And a table, or what a view calls one, may be called as the schema
is: then `shop`.`id` is a column, and `shop`.`orders` a table where one has to come.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from agent.engines.mariadb.names import quoted

_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*(?:``[^`]*)*`|\w+|\S""", re.DOTALL)
_OF_SEQUENCES = ("nextval", "lastval", "setval")


@dataclass
class _Group:
    """What stands between two parentheses.

    Attributes:
        known: quoted names that a WITH has made.
        selects: it is a query, so a FROM in it is not that of TRIM or EXTRACT.
    """

    known: set[str] = field(default_factory=set)
    selects: bool = False


def tables_read(view: str) -> set[str]:
    """Quoted names, without those of their schemas."""
    tokens = _TOKEN.findall(view)
    return {tokens[at] for at in _reads(tokens)}


def moved(view: str, source: str, target: str) -> str:
    """A view's text for another schema; empty: for the current one. Where a view reads more than its own schema, the
    server writes its names in full."""
    before, after = quoted(source), f"{quoted(target)}." if target else ""
    if before not in view:
        return view
    found = list(_TOKEN.finditer(view))
    tokens = [token[0] for token in found]
    tables = set(_reads(tokens))
    parts: list[str] = []
    copied = 0
    for at, token in enumerate(tokens):
        if token == before and _is_schema(tokens, at, tables):
            parts += (view[copied : found[at].start()], after)
            copied = found[at + 1].end()
    return "".join((*parts, view[copied:]))


def _is_schema(tokens: Sequence[str], at: int, tables: Collection[int]) -> bool:
    """Whether a name is that of a schema.

    Args:
        tables: where the names of tables are.
    """
    is_qualified = at > 0 and tokens[at - 1] == "."
    if is_qualified or tokens[at + 1 : at + 2] != ["."]:
        return False
    # A column with its table, or a function.
    if tokens[at + 3 : at + 4] in (["."], ["("]):
        return True
    opens_call = at > 1 and tokens[at - 1] == "(" and tokens[at - 2].lower() in _OF_SEQUENCES
    is_head = at == 0 or tokens[at - 1].lower() == "view"
    return at + 2 in tables or opens_call or is_head


def _reads(tokens: Sequence[str]) -> Iterator[int]:
    """Where the names of tables are that are read and that no WITH has made."""
    groups = [_Group()]
    coming: dict[int, set[str]] = {}
    is_awaited = False
    for at, token in enumerate(tokens):
        match token.lower():
            case "(":
                groups.append(_Group())
            case ")" if len(groups) > 1:
                groups.pop()
                is_awaited = False
            case "with":
                coming |= _made_known(tokens, at + 1)
            case "select":
                groups[-1].selects, is_awaited = True, False
            case "join":
                is_awaited = True
            case "straight_join" if tokens[at - 1].lower() != "select":
                is_awaited = True
            case "from":
                is_awaited = groups[-1].selects
            case ".":
                pass
            case _ if tokens[at + 1 : at + 2] == ["."]:
                pass
            case _:
                is_own = tokens[at - 1] == "." or not any(token in group.known for group in groups)
                if is_awaited and is_own and token.startswith("`"):
                    yield at
                is_awaited = False
        groups[-1].known |= coming.get(at, set())


def _made_known(tokens: Sequence[str], at: int) -> dict[int, set[str]]:
    """The names that a WITH makes, by the token after which they are known; none where it is that of WITH ROLLUP."""
    first = at
    is_recursive = tokens[at : at + 1] == ["recursive"]
    at += is_recursive
    known: defaultdict[int, set[str]] = defaultdict(set)
    while at < len(tokens):
        name = tokens[at] if tokens[at].startswith("`") else quoted(tokens[at])
        at += 1
        if tokens[at : at + 1] == ["("]:
            at = _end_of(tokens, at) + 1
        if tokens[at : at + 2] != ["as", "("]:
            break
        at = _end_of(tokens, at + 1)
        known[first if is_recursive else at].add(name)
        at += 1
        if tokens[at : at + 1] == ["CYCLE"]:
            at = tokens.index("RESTRICT", at) + 1
        if tokens[at : at + 1] != [","]:
            break
        at += 1
    return known


def _end_of(tokens: Sequence[str], at: int) -> int:
    """Where the parenthesis is closed that opens there."""
    depth = 0
    for end in range(at, len(tokens)):
        depth += (tokens[end] == "(") - (tokens[end] == ")")
        if depth == 0:
            return end
    return len(tokens)
