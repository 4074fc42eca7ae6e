"""Where a replay looks for a server's programs, besides the usual places."""

from __future__ import annotations

import os


def named_directories(variable: str) -> list[str]:
    """Those that an environment variable names, separated by colons."""
    return [part for part in os.environ.get(variable, "").split(":") if part]
