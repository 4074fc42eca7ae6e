"""The contract over Valkey, a variant of the one over Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.suite import ContractSuite
from tests.contract.test_redis import KEEPS_ALL, Redis
from tools.servers import RedisServer, redis

pytestmark = pytest.mark.variant


@pytest.fixture(scope="module")
def app() -> Iterator[Redis]:
    with RedisServer(redis("valkey-9.1"), settings=KEEPS_ALL) as server:
        yield Redis(server)


class TestValkey(ContractSuite):
    """All but the kills, which are those of Redis; tests/integration/agent/recipes/test_redis_crashes.py has some."""

    test_an_agent_killed_at_any_moment_leaves_one_side_and_nothing_else = None  # type: ignore[assignment]
