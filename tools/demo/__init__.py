"""The demo: real apps with real data, exported, wiped, imported and compared before your eyes. `make demo`."""

from __future__ import annotations
