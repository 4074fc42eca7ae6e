"""Hides rich from structlog, which imports it for coloured tracebacks when it finds it: 8 MiB and 0.1 s of a start for
what the log of a service never shows. Importing this module is what does it, before structlog is."""

from __future__ import annotations

import sys
from typing import Any

_hidden: dict[str, Any] = {"rich": None}
sys.modules.update(_hidden)
