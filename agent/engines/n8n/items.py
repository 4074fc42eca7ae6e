"""What n8n's database holds, each thing by its id with a digest of its content, so that two databases can be compared.

Runs in a child process only. Secrets count in clear, since they are another text under every key; the digests are keyed
anew for every comparison, so they give nothing away and are good for nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence

from agent.engines.n8n.contents import WORKFLOWS
from agent.engines.n8n.encryption import CBC_START, CBC_TOKEN, NotReadableError, decrypt
from agent.engines.n8n.preparations import Items
from agent.engines.n8n.rekeying import data_keys_of, opened
from agent.engines.n8n.secret_rows import CREDENTIALS
from agent.engines.n8n.stores import Store

SECONDS = 5.0
_MOST = 10_000
"""Of one kind; where there are more, the kind is left out."""
_COLUMNS = {
    "workflows": (WORKFLOWS, ("name", "active", "nodes", "connections", "settings", "pinData")),
    "credentials": (CREDENTIALS, ("name", "type", "data")),
    "users": ("user", ("email", "firstName", "lastName", "password", "disabled")),
    "executions": ("execution_entity", ("workflowId", "status", "startedAt")),
}
"""What makes a thing what it is: not its times of change, not what an n8n of another version added."""
_DATA_TABLES = "data_table"


def items_of(store: Store, key: str, *, salt: str, seconds: float = SECONDS) -> Items:
    """Digests by kind and id; without kinds that are too many, or for which there was no time left.

    Args:
        key: opens what is secret.
    """
    ends_at = time.monotonic() + seconds
    data_keys = data_keys_of(store, key)
    found: dict[str, dict[str, str]] = {}
    tables = store.tables()
    for kind, (table, columns) in _COLUMNS.items():
        if table not in tables:
            continue
        there = store.columns(table)
        digests: dict[str, str] = {}
        for identity, *texts in store.contents(table, ("id", *(name for name in columns if name in there))):
            if len(digests) == _MOST or time.monotonic() > ends_at:
                break
            clear = [_in_clear(text, key, data_keys, is_whole=kind == "credentials") for text in texts]
            digests[str(identity)] = _digest(clear, salt).hex()
        else:
            found[kind] = digests
    with contextlib.suppress(TimeoutError):
        found |= _data_tables(store, tables, salt=salt, ends_at=ends_at)
    return found


def _data_tables(store: Store, tables: Collection[str], *, salt: str, ends_at: float) -> dict[str, dict[str, str]]:
    """Those that people keep data in (2.x), by their ids, each with all of its rows.

    Raises:
        TimeoutError: there was no time for all.
    """
    digests = {}
    # All at once: a server reads one table at a time.
    named = list(store.contents(_DATA_TABLES, ("id", "name"))) if _DATA_TABLES in tables else []
    for identity, name in named:
        total = 0
        table = f"data_table_user_{identity}"
        rows = store.contents(table, sorted(store.columns(table))) if table in tables else ()
        for row in rows:
            if time.monotonic() > ends_at:
                raise TimeoutError
            # A sum, since rows come in any order.
            total += int.from_bytes(_digest(row, salt))
        digests[str(identity)] = _digest((name, total), salt).hex()
    return {"data tables": digests}


def _digest(content: Sequence[object], salt: str) -> bytes:
    return hashlib.blake2b(json.dumps(content).encode(), key=salt.encode(), digest_size=16).digest()


def _in_clear(text: str | None, key: str, data_keys: Mapping[str, str], *, is_whole: bool) -> str | None:
    """The text with everything in it decrypted that the key opens."""
    if text is None:
        return None
    if is_whole:
        try:
            return opened(text, key, data_keys)
        except ValueError:
            pass
    if CBC_START not in text:
        return text

    def clear(value: str) -> str:
        try:
            return decrypt(value, key)
        except NotReadableError:
            return value

    return CBC_TOKEN.sub(lambda match: match[0].replace(match["value"], clear(match["value"])), text)
