"""Which tables and views a view reads, told from its text as the server writes it.

The one fact to know: what a WITH makes is called as tables are, and may be called as one of them. It is known from the
end of its own text on (of a recursive one: from its beginning), within the parentheses that its WITH stands in. The
server writes its name there without quotes (10.11).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.engines.mariadb.names import quoted, without_strings

_TOKEN = re.compile(r"`(?:[^`]|``)*`|\w+|\S")


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
    tokens = _TOKEN.findall(without_strings(view))
    found: set[str] = set()
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
            case "from":
                is_awaited = groups[-1].selects
            case ".":
                pass
            case _ if tokens[at + 1 : at + 2] == ["."]:
                pass
            case _:
                is_own = tokens[at - 1] == "." or not any(token in group.known for group in groups)
                if is_awaited and is_own and token.startswith("`"):
                    found.add(token)
                is_awaited = False
        groups[-1].known |= coming.get(at, set())
    return found


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
