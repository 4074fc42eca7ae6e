"""The contract over MySQL 8, a variant of the one over MariaDB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.suite import ContractSuite
from tests.contract.test_mariadb import Mariadb
from tests.fixtures.mariadb_apps import MariadbApp
from tools.servers.mysql import MysqlServer, mysql

pytestmark = pytest.mark.variant


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mariadb]:
    with MysqlServer(mysql("mysql-8.0")) as server:
        yield Mariadb(MariadbApp(server, tmp_path_factory.mktemp("app") / "work"))


class TestMysql(ContractSuite):
    """All of it."""
