"""The contract over n8n on SQLite."""

from __future__ import annotations

import pytest

from tests.contract.n8n_app import N8nOnSqlite
from tests.contract.suite import ContractSuite


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> N8nOnSqlite:
    return N8nOnSqlite(tmp_path_factory.mktemp("app"))


class TestN8n(ContractSuite):
    """All of it."""
