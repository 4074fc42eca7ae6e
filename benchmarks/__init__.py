"""Speed and memory of the whole product against what people would use instead. `make bench`."""

from __future__ import annotations
