"""Whether what the agent sees is the server's drive."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.minio.server.facts import Facts, drive_obstacle


@pytest.mark.parametrize(
    ("format", "words"),
    [
        ('{"format": "xl-single", "id": "here"}', ""),
        ('{"format": "xl-single", "id": "elsewhere"}', "not the server's"),
        ('{"format": "xl", "id": "here"}', "is one of several drives"),
        ('{"format": "fs", "id": "here"}', "old kind, which kept objects as plain files"),
        ("torn", "cannot be read"),
    ],
)
def test_a_drive_that_cannot_be_exchanged_is_told_by_what_it_is(format: str, words: str, tmp_path: Path) -> None:
    (tmp_path / ".minio.sys").mkdir()
    (tmp_path / ".minio.sys/format.json").write_text(format)
    facts = Facts(version="", deployment_id="here", uptime_seconds=0, servers=1, drives=1, kms="")

    obstacle = drive_obstacle(facts, tmp_path)

    assert words in obstacle
    assert bool(words) == bool(obstacle)


@pytest.mark.parametrize("linked", [".minio.sys", ".minio.sys/config", ".minio.sys/buckets"])
def test_a_drive_of_which_a_part_is_a_link_is_told_by_it(linked: str, tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    for name in ("buckets", "config"):
        (drive / ".minio.sys" / name).mkdir(parents=True)
    (drive / ".minio.sys/format.json").write_text('{"format": "xl-single", "id": "here"}')
    facts = Facts(version="", deployment_id="here", uptime_seconds=0, servers=1, drives=1, kms="")
    before = drive_obstacle(facts, drive)

    (drive / linked).rename(tmp_path / "elsewhere")
    (drive / linked).symlink_to(tmp_path / "elsewhere")

    assert before == ""
    assert f"`{linked}` is a link" in drive_obstacle(facts, drive)
