"""The version of this product, as pyproject.toml has it; a test compares the two.

Asking `importlib.metadata` would cost an agent 3 MiB for five characters.
"""

from __future__ import annotations

VERSION = "0.1.0"
MADE_BY = f"mathison-data {VERSION}"
"""As archives and the journal say which program wrote them."""
