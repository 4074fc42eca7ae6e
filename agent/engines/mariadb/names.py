"""What an import is called in the server, and how names are written; `key` is 12 digits of hex."""

from __future__ import annotations


def new_schema(key: str) -> str:
    """Where the upload is loaded, and where imported tables go back to in an undo."""
    return f"mathison_new_{key}"


def old_schema(key: str) -> str:
    """Where the previous tables are kept."""
    return f"mathison_old_{key}"


def loader(key: str) -> str:
    """The throw-away account that loads; without a host name, from anywhere."""
    return f"mathison_load_{key}"


def quoted(name: str) -> str:
    """A name as SQL needs it."""
    return "`" + name.replace("`", "``") + "`"
