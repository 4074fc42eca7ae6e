from __future__ import annotations

import tomllib
from pathlib import Path

from tools.deployment.toml_text import Table, to_toml


def test_what_is_written_reads_back_the_same() -> None:
    table: Table = {
        "name": 'with "quotes", \\ and \n and ü',
        "number": 72,
        "share": 0.5,
        "is_on": True,
        "argv": ["a", "b c"],
        "nothing": [],
        "part": {"listen": "127.0.0.1:0", "argv": ["x"]},
        "apps": [{"id": "shop.db"}, {"id": "shop.files"}],
    }

    assert tomllib.loads(to_toml(table)) == table


def test_paths_are_written_as_text_and_none_is_left_out() -> None:
    assert tomllib.loads(to_toml({"path": Path("/a b"), "none": None, "part": {"none": None}})) == {
        "path": "/a b",
        "part": {},
    }
