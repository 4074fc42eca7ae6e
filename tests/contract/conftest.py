"""For the contract: assertions of the suite, which is no module of tests itself, say what they found; and the children
of agents are forked, but not those of the program, see tests/fixtures/nursery.py."""

from __future__ import annotations

import pytest

from tests.fixtures.forked_children import forked_children as forked_children
from tests.fixtures.forked_children import nursery as nursery

pytest.register_assert_rewrite("tests.contract.suite")
