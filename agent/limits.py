"""What an import may cost at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """All are checked while data arrives, not at its end."""

    archive_bytes: int = 1 << 40
    """Size of the uploaded file."""
    content_bytes: int = 4 << 40
    """Size after decompression."""
    expansion_ratio: int = 200
    """Content bytes for each byte of the file, once the content is over 1 GiB; above it is a bomb."""
    entries: int = 20_000_000
    """Members of a tar or zip."""
    free_bytes: int = 256 << 20
    """Room that staging leaves on every filesystem it writes to; below it NoSpaceError."""
