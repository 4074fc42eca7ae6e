"""The suite is no module of tests itself, and its assertions are to say what they found all the same."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.contract.suite")
