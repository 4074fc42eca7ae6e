"""The encryption key in n8n's folder, or in a copy of it that somebody made."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.n8n.folder import CONFIG, instance_key, take_key
from agent.engines.n8n.settings import read_settings


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ('{"encryptionKey": "a key"}', "a key"),
        ('{"encryptionKey": "\\ud83d\\ude00"}', "😀"),
        ('{"encryptionKey": "a\\ud800b"}', "a\ufffdb"),
        ('{"encryptionKey": 5}', ""),
        ("{}", ""),
        ("[]", ""),
    ],
)
def test_the_key_is_the_text_that_n8n_makes_bytes_of(tmp_path: Path, config: str, key: str) -> None:
    (tmp_path / CONFIG).write_text(config)

    assert instance_key(read_settings({"directory": str(tmp_path)})) == key
    assert take_key(tmp_path).clear == key
    assert not (tmp_path / CONFIG).exists()
