"""The rows of n8n's database whose contents are all secret: credentials, and the keys of its own that it wraps."""

from __future__ import annotations

from collections.abc import Iterator

from agent.engines.n8n.stores import Store

CREDENTIALS = "credentials_entity"
KEYS = "deployment_key"
DATA_KEY = "data_encryption"
LEGACY_ALGORITHM = "aes-256-cbc"

WrappedKey = tuple[str, str, str, str]
"""A row of deployment_key: id, type, value, algorithm."""
Credential = tuple[str, str, str]
"""id, name, what is encrypted."""


def is_rotating(store: Store) -> bool:
    """Whether n8n's own rotation of keys is in use (N8N_ENV_FEAT_ENCRYPTION_KEY_ROTATION)."""
    return any(kind == DATA_KEY and algorithm != LEGACY_ALGORITHM for _, kind, _, algorithm in wrapped_keys(store))


def is_wrapped(kind: object, algorithm: object) -> bool:
    """Whether a row of deployment_key is encrypted."""
    return algorithm is not None and kind != "instance.id"


def wrapped_keys(store: Store) -> Iterator[WrappedKey]:
    """None where n8n has no such table."""
    if KEYS not in store.tables():
        return
    for identity, kind, value, algorithm in store.run("SELECT id, type, value, algorithm FROM {table}", table=KEYS):
        if is_wrapped(kind, algorithm):
            yield str(identity), str(kind), str(value), str(algorithm)


def credentials(store: Store) -> Iterator[Credential]:
    """Those that hold anything."""
    for (identity,) in store.run("SELECT id FROM {table} ORDER BY id", table=CREDENTIALS):
        for name, value in store.run("SELECT name, data FROM {table} WHERE id = ?", identity, table=CREDENTIALS):
            if value:
                yield str(identity), str(name), str(value)
