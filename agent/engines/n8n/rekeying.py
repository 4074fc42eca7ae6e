"""Which key opens the secrets in n8n's database, and all of them encrypted again for another one.

Everything n8n keeps under its instance key is changed together, in the caller's transaction. Where keys are rotated
(2.x), the rotating keys are wrapped by the instance key, so only their wrapping changes.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.engines.n8n.encryption import (
    CBC_START,
    CBC_TOKEN,
    NotReadableError,
    decrypt,
    decrypt_gcm,
    encrypt,
    unwrap,
    wrap,
)
from agent.engines.n8n.fits import Fit
from agent.engines.n8n.secret_rows import (
    CREDENTIALS,
    DATA_KEY,
    KEYS,
    LEGACY_ALGORITHM,
    Credential,
    WrappedKey,
    credentials,
    wrapped_keys,
)
from agent.engines.n8n.stores import Store

_EXECUTIONS, _EXECUTION_DATA = "execution_entity", "execution_data"
"""The data is large. What is encrypted in it (who started an execution from the editor, for example) n8n reads again
where it goes on with one or tries it again: not where it succeeded."""
_USERS = "user"
_SECOND_FACTOR = {"mfaEnabled": "false", "mfaSecret": "NULL", "mfaRecoveryCodes": "NULL"}
_NOT_SEARCHED = {KEYS, _EXECUTION_DATA, "migrations"}


@dataclass
class Rekeyed:
    """What was encrypted again."""

    secrets: int = 0
    left: list[str] = field(default_factory=list)
    """Places of values that were not readable before either."""


def fit_of(store: Store, key: str) -> Fit:
    """Try a key on everything that is n8n's for certain."""
    return fit_of_rows(wrapped_keys(store), credentials(store), key)


def fit_of_rows(wrapped: Iterable[WrappedKey], secrets: Iterable[Credential], key: str) -> Fit:
    """The same for rows that were read already."""
    fit = Fit()
    data_keys: dict[str, str] = {}
    for identity, kind, value, _ in wrapped:
        try:
            data_keys[identity] = unwrap(value, key)
            fit.readable += 1
        except NotReadableError:
            fit.unreadable.append(f"deployment key {kind}")
            fit.keys_differ = True
    for identity, name, value in secrets:
        try:
            json.loads(opened(value, key, data_keys))
            fit.readable += 1
        except ValueError:
            fit.unreadable.append(f"credential {name} ({identity})")
    return fit


def rekey(store: Store, old: str, new: str) -> Rekeyed:
    """Encrypt everything again that is encrypted with the key `old`, which has to fit."""
    done = Rekeyed()
    rotating: set[str] = set()
    for identity, kind, value, algorithm in wrapped_keys(store):
        plain = unwrap(value, old)
        if kind == DATA_KEY and algorithm == LEGACY_ALGORITHM and plain == old:
            # The instance's key itself, for reading what was written before keys were rotated.
            plain = new
        elif kind == DATA_KEY:
            rotating.add(identity)
        store.run("UPDATE {table} SET value = ? WHERE id = ?", wrap(plain, new), identity, table=KEYS)
        done.secrets += 1
    for table, column in _places(store):
        for row, text in store.texts(table, column, containing=CBC_START):
            changed = _rekeyed(text, old, new, rotating, done, f"{table}.{column}")
            if changed != text:
                store.write(table, column, row, changed)
    for execution, text in _unfinished(store):
        changed = _rekeyed(text, old, new, rotating, done, _EXECUTION_DATA)
        if changed != text:
            update = 'UPDATE {table} SET data = ? WHERE "executionId" = ?'
            store.run(update, changed, execution, table=_EXECUTION_DATA)
    return done


def drop_secrets(store: Store, new: str) -> int:
    """Replace everything secret by nothing, readable with the key `new`; how many credentials are empty now.

    Credentials keep their names and ids, so that workflows still refer to them. Keys of deployment_key go: n8n makes
    new ones when it starts. Second factors go too: nobody could pass one.
    """
    tables = store.tables()
    rotated = [identity for identity, kind, _, _ in wrapped_keys(store) if kind == DATA_KEY]
    emptied = 0

    def emptied_value(match: re.Match[str]) -> str:
        before = "" if match["id"] in (None, *rotated) else f"{match['id']}:"
        return before + encrypt("", new)

    for identity, _, _ in list(credentials(store)):
        store.run("UPDATE {table} SET data = ? WHERE id = ?", encrypt("{}", new), identity, table=CREDENTIALS)
        emptied += 1
    if KEYS in tables:
        store.run("DELETE FROM {table}", table=KEYS)
    if _USERS in tables:
        for column, nothing in _SECOND_FACTOR.items():
            if column in store.columns(_USERS):
                store.run("UPDATE {table} SET {column} = " + nothing, table=_USERS, column=column)  # noqa: S608
    for table, column in _places(store):
        if (table, column) == (CREDENTIALS, "data"):
            continue
        for row, text in store.texts(table, column, containing=CBC_START):
            store.write(table, column, row, CBC_TOKEN.sub(emptied_value, text))
        for identity in rotated:
            for row, text in store.texts(table, column, containing=f"{identity}:"):
                if text.startswith(f"{identity}:"):
                    store.write(table, column, row, encrypt("", new))
    return emptied


def _rekeyed(text: str, old: str, new: str, rotating: set[str], done: Rekeyed, place: str) -> str:
    parts: list[str] = []
    at = 0
    for match in CBC_TOKEN.finditer(text):
        if match["id"] in rotating:
            # That key stays as it is.
            continue
        try:
            value = encrypt(decrypt(match["value"], old), new)
        except NotReadableError:
            done.left.append(place)
            continue
        done.secrets += 1
        parts += [text[at : match.start("value")], value]
        at = match.end("value")
    return "".join([*parts, text[at:]])


def data_keys_of(store: Store, key: str) -> dict[str, str]:
    """The keys of deployment_key that the instance's key opens, by their ids."""
    found = {}
    for identity, _, value, _ in wrapped_keys(store):
        with contextlib.suppress(NotReadableError):
            found[identity] = unwrap(value, key)
    return found


def opened(value: str, key: str, data_keys: Mapping[str, str]) -> str:
    """What a credential holds; NotReadableError, or another ValueError, when it does not open."""
    identity, colon, rest = value.partition(":")
    if not colon:
        return decrypt(value, key)
    data_key = data_keys.get(identity)
    if data_key is None:
        raise NotReadableError("a key that is not there")
    if rest.startswith(CBC_START):
        return decrypt(rest, data_key)
    return decrypt_gcm(rest, bytes.fromhex(data_key))


def _unfinished(store: Store) -> Iterator[tuple[int, str]]:
    """Data with something encrypted in it, of executions that did not succeed."""
    if _EXECUTION_DATA not in store.tables() or "status" not in store.columns(_EXECUTIONS):
        return
    # One by one by their key: in one query a server would read the data of all executions.
    where = "SELECT id FROM {table} WHERE status <> 'success' OR status IS NULL ORDER BY id"
    what = 'SELECT CAST(data AS TEXT) FROM {table} WHERE "executionId" = ? AND CAST(data AS TEXT) LIKE ?'
    for (identity,) in store.run(where, table=_EXECUTIONS):
        for (text,) in store.run(what, identity, f"%{CBC_START}%", table=_EXECUTION_DATA):
            yield identity, text


def _places(store: Store) -> Iterator[tuple[str, str]]:
    """Text columns that may hold something encrypted."""
    for table in sorted(store.tables() - _NOT_SEARCHED):
        for column, is_text in store.columns(table).items():
            if is_text:
                yield table, column
