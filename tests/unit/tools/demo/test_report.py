from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from rich.console import Console

from tools.demo.report import print_addresses
from tools.deployment import Deployment


def test_no_command_that_is_shown_puts_the_token_on_argv() -> None:
    deployment = SimpleNamespace(
        token="mathison-api.secret",
        token_path=Path("/run/token"),
        header_path=Path("/run/header"),
        client=SimpleNamespace(authorities="ca", certificate="cert", key="key"),
        sites={"shop.db": None},
        rest="http://127.0.0.1:1",
        grpc_address="127.0.0.1:2",
    )
    console = Console(record=True, width=400)

    print_addresses(console, cast("Deployment", deployment), demo_file=Path("/run/demo.json"))

    commands = console.export_text().partition("Try:")[2]
    assert "grpcurl" in commands
    assert "secret" not in commands
    assert "-expand-headers -H 'authorization: Bearer ${MATHISON_TOKEN}'" in commands
