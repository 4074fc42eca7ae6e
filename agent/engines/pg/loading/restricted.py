"""Which statements run when an upload has to be loaded with the app's own rights: those that pg_dump writes, no others.

Each is sent alone, so nothing can hide behind one; and none of these ends the transaction, reaches another database or
changes a role. What remains is code in functions of the upload that a constraint or index calls while rows are loaded:
`own_rights` looks at what such code could have changed. Imports little: it runs in a child that has to stay small.
"""

from __future__ import annotations

import re

from agent.engines.pg.loading.sql_tokens import IDENTIFIER
from agent.engines.pg.loading.statements import RUN, Decision, Judge, There, Way
from agent.engines.pg.server.text_errors import TextError, made_outside_of_schemas

_HEAD_BYTES = 200
_I = re.IGNORECASE | re.DOTALL
_KINDS = (
    rb"AGGREGATE|CAST|COLLATION|CONSTRAINT\s+TRIGGER|CONVERSION|DEFAULT\s+CONVERSION|DOMAIN|EXTENSION|FOREIGN\s+TABLE"
    rb"|FUNCTION|INDEX|MATERIALIZED\s+VIEW|OPERATOR|POLICY|PROCEDURE|PUBLICATION|RECURSIVE\s+VIEW|RULE|SCHEMA|SEQUENCE"
    rb"|STATISTICS|TABLE|TEXT\s+SEARCH|TRANSFORM|TRIGGER|TYPE|UNIQUE\s+INDEX|UNLOGGED\s+SEQUENCE|UNLOGGED\s+TABLE|VIEW"
)
_ALLOWED = re.compile(
    rb"(?:CREATE\s+(?:OR\s+REPLACE\s+)?(?:%b)|ALTER\s+(?:%b)|COMMENT\s+ON|COPY|INSERT\s+INTO|REFRESH\s+MATERIALIZED\s+VIEW)\b"
    % (_KINDS, _KINDS),
    _I,
)
_LEFT_OUT = re.compile(
    rb"(?:DROP\s+(?:%b)|GRANT|REVOKE|SECURITY\s+LABEL|ALTER\s+DEFAULT\s+PRIVILEGES"
    rb"|ALTER\s+LARGE\s+OBJECT|(?:CREATE|ALTER|DROP)\s+(?:EVENT\s+TRIGGER|SUBSCRIPTION)"
    rb"|SELECT\s+pg_catalog\.lo_unlink\(oid\)\s+FROM\s+pg_catalog\.pg_largeobject_metadata\s+WHERE\s+oid)\b" % _KINDS,
    _I,
)
"""What an import has no need of: the database is empty, and owners and grants are not taken from a file."""
_TRANSACTION = re.compile(rb"(?:BEGIN|COMMIT)\s*\Z", re.IGNORECASE)
"""pg_dump writes these around large objects."""
_PUBLICATION = re.compile(rb"(?:CREATE|ALTER|COMMENT\s+ON)\s+PUBLICATION\s+(%b)" % IDENTIFIER, _I)
"""In the app's own database one of that name may be there already, for the previous tables."""
_LITERAL = (
    rb"(?:-?\d+|true|false|E'[^'\\]*(?:(?:''|\\.)[^'\\]*){0,1000}'(?!')"
    rb"|'[^'\\]*(?:(?:''|\\[^'])[^'\\]*){0,1000}'(?!'))"
)
"""Without the E no quote after a backslash: what it means is another thing by standard_conforming_strings."""
_CALL = re.compile(
    rb"SELECT\s+pg_catalog\.(?:(?:setval|lo_create|lo_open|lowrite|lo_close|lo_unlink)\(|set_config\((?='search_path'))"
    rb"%b(?:\s*,\s*%b){0,3}\)\s*\Z" % (_LITERAL, _LITERAL),
    _I,
)
"""Functions on literals only: an argument could be a call itself."""
_SETTING = re.compile(
    rb"SET\s+(?:SESSION\s+)?(?:statement_timeout|lock_timeout|idle_in_transaction_session_timeout|transaction_timeout"
    rb"|client_encoding|standard_conforming_strings|check_function_bodies|xmloption|client_min_messages|row_security"
    rb"|default_tablespace|default_table_access_method|default_with_oids|search_path|escape_string_warning"
    rb"|default_toast_compression)\s*(?:=|TO)\s",
    _I,
)
_STATISTICS = re.compile(rb"SELECT\s+\*\s+FROM\s+pg_catalog\.pg_restore_(?:relation|attribute)_stats\(", _I)


class RestrictedJudge(Judge):
    """Decides as Judge does, about fewer statements."""

    def __init__(self, there: There, *, server_version_num: int, is_in_transaction: bool = False) -> None:
        """
        Args:
            is_in_transaction: all runs in one that is ours.
        """
        super().__init__(there, server_version_num=server_version_num)
        self._is_in_transaction = is_in_transaction

    def decide(self, text: bytes, line: int) -> Decision:
        """
        Raises:
            TextError: pg_dump writes no such statement.
        """
        if self._is_in_transaction and (publication := _PUBLICATION.match(text)):
            return Decision(Way.DEFER, "publication", publication[1])
        if _TRANSACTION.match(text):
            return Decision(Way.SKIP) if self._is_in_transaction else RUN
        if _LEFT_OUT.match(text) or _STATISTICS.match(text):
            return self._deferred(text) or Decision(Way.SKIP)
        if not (_ALLOWED.match(text) or _CALL.match(text) or _SETTING.match(text)):
            if there := self.about_what_is_there(text):
                return there
            if found := made_outside_of_schemas(text[:_HEAD_BYTES].decode(errors="replace")):
                thing, next_step = found
                said = f"Line {line} makes {thing}, which an import with the app's own rights does not."
                raise TextError("ARCHIVE_INCOMPATIBLE", said, next_step=next_step)
            raise TextError(
                "ARCHIVE_REFUSED",
                f"Line {line}: a statement that pg_dump does not write, {_head(text)!r}; the import would run it with "
                "the app's own rights.",
                next_step="Import a file made by pg_dump, or give the agent an admin_user.",
            )
        decision = super().decide(text, line)
        is_tried = decision.way is Way.COMMENT_IF_OWN and self._is_in_transaction
        return Decision(Way.SKIP) if decision.way is Way.REMOVE or is_tried else decision


def _head(text: bytes) -> str:
    return " ".join(text[:60].decode(errors="replace").split()[:3])
