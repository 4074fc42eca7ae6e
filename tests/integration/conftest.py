"""The agent's children in these tests are forked, see tests/fixtures/nursery.py."""

from __future__ import annotations

from tests.fixtures.forked_children import forked_children as forked_children
from tests.fixtures.forked_children import nursery as nursery
