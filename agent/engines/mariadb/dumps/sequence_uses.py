"""In whose schema a default looks for its sequence, as the server writes it.

Apart from what asks a server, since the jailed child that reads a dump needs this alone.
"""

from __future__ import annotations

import re

from agent.engines.mariadb.names import bare, quoted

_NAME = r"`[^`]*(?:``[^`]*)*`"
USE = re.compile(
    rf"""'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"|{_NAME}"""
    rf"|\b(?P<call>(?:next|last|set)val\s*\(\s*)(?P<schema>{_NAME}|[\w$]+)\s*(?=\.\s*(?P<sequence>{_NAME}|[\w$]+))",
    re.IGNORECASE | re.DOTALL,
)
"""A string, a name, or where the schema of a sequence stands."""


class ForeignSequenceError(Exception):
    """A default is taken from a sequence of another schema.

    Attributes:
        schema: its name.
    """

    def __init__(self, schema: str) -> None:
        super().__init__(schema)
        self.schema = schema


def moved(text: str, source: str, target: str) -> str:
    """A default, or the text of a table, with its sequences looked for in another schema.

    Raises:
        ForeignSequenceError: one is in neither.
    """

    def replaced(found: re.Match[str]) -> str:
        if found["schema"] is None:
            return found[0]
        if (schema := bare(found["schema"])) not in (source, target):
            raise ForeignSequenceError(schema)
        return found["call"] + quoted(target)

    return USE.sub(replaced, text) if "val" in text.lower() else text
