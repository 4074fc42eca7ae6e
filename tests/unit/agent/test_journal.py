from __future__ import annotations

import datetime as dt
import errno
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent.journal import ImportPhase, Journal
from agent.recipes.base import Preview
from agent.states import Kind, Phase, TransferState
from common.errors import NoSpaceError
from common.headers import ArchiveHeader, Receipt

MOMENT = dt.datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=dt.UTC)


def state(transfer_id: str = "t-1", *, minutes: int = 0) -> TransferState:
    return TransferState(
        transfer_id=transfer_id,
        kind=Kind.IMPORT,
        started_at=MOMENT + dt.timedelta(minutes=minutes),
        phase=Phase.STAGED,
        preview=Preview(changes=("12 tables",), counts_after={"tables": 12}, header=ArchiveHeader(format="sql")),
        receipt=Receipt(size_bytes=10, sha256="00" * 32),
        header=ArchiveHeader(recipe="fake", created_at=MOMENT),
    )


def journal(directory: Path, *, versions: Sequence[int] = (1,), made_by: str = "") -> Journal:
    return Journal(directory / "journal", app_id="shop.db", recipe="fake", versions=versions, made_by=made_by)


def test_a_line_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    entry = journal(tmp_path).open(state())
    entry.save(database="app_new", several=["a", "b"], nothing=None)
    entry.save(database="app_newer")
    entry.move(ImportPhase.KEPT, state(), expires_at=MOMENT)

    (found,) = journal(tmp_path).read()

    assert found.facts == {"database": "app_newer", "several": ["a", "b"], "nothing": None}
    assert (found.key, found.phase, found.state, found.expires_at) == (entry.key, ImportPhase.KEPT, state(), MOMENT)


def test_keys_are_twelve_hex_digits_and_differ(tmp_path: Path) -> None:
    keys = {journal(tmp_path).open(state()).key for _ in range(20)}

    assert len(keys) == 20
    assert all(len(key) == 12 and int(key, 16) >= 0 for key in keys)


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    entry = journal(tmp_path).open(state())

    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "journal" / f"{entry.key}.json").stat().st_mode) == 0o600


def test_a_removed_line_is_gone(tmp_path: Path) -> None:
    entry = journal(tmp_path).open(state())

    entry.remove()
    entry.remove()

    assert journal(tmp_path).read() == []


def test_lines_come_in_the_order_of_their_imports(tmp_path: Path) -> None:
    for minutes in (3, 1, 2):
        journal(tmp_path).open(state(f"t-{minutes}", minutes=minutes))

    assert [entry.transfer_id for entry in journal(tmp_path).read()] == ["t-1", "t-2", "t-3"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(lambda line: line[: len(line) // 2], "damaged", id="torn"),
        pytest.param(lambda line: b"", "damaged", id="empty"),
        pytest.param(lambda line: b"[]", "damaged", id="no object"),
        pytest.param(lambda line: line.replace(b'"shop.db"', b'"shop.web"'), "the app shop.web", id="another app"),
        pytest.param(lambda line: line.replace(b'"recipe":"fake"', b'"recipe":"x"'), "recipe x", id="another recipe"),
        pytest.param(lambda line: line.replace(b'"key":"', b'"key":"f'), "the key f", id="another import"),
    ],
)
def test_a_line_that_cannot_be_used_stays_and_is_told_and_the_others_are_read(
    tmp_path: Path, content: Callable[[bytes], bytes], reason: str
) -> None:
    good, bad = journal(tmp_path).open(state("good")), journal(tmp_path).open(state("bad"))
    path = tmp_path / "journal" / f"{bad.key}.json"
    damaged = content(path.read_bytes())
    path.write_bytes(damaged)
    mine = journal(tmp_path)

    entries = mine.read()

    assert [entry.key for entry in entries] == [good.key]
    assert path.read_bytes() == damaged
    [line] = mine.unknown
    assert not line.is_at_rest
    assert reason in line.text
    assert "Nothing was changed." in line.text
    assert str(path) in line.to_error().next_step


def test_a_line_that_the_disk_does_not_give_now_is_told_and_read_by_the_next_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = journal(tmp_path).open(state())
    mine = journal(tmp_path)

    def stale(path: Path, **_: object) -> bytes:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    with monkeypatch.context() as disk:
        disk.setattr(Path, "read_bytes", stale)
        disk.setattr(os, "lstat", stale)
        assert mine.read() == []
        [line] = mine.unknown

    assert mine.unknown == [line]
    assert "cannot be read: Stale file handle. Nothing was changed." in line.text
    assert [found.key for found in journal(tmp_path).read()] == [entry.key]


@pytest.mark.parametrize(
    ("change", "is_at_rest", "reason"),
    [
        pytest.param((b'"version":2', b'"version":4'), True, "of version 4, not 2 and 3", id="a later version"),
        pytest.param((b'"version":2', b'"version":1'), True, "of version 1, not 2 and 3", id="an earlier version"),
        pytest.param((b'"staging"', b'"dancing"'), False, "dancing", id="a phase that is not known"),
        pytest.param((b'"phase":"staging"', b'"version":4'), False, "of version 4", id="no phase at all"),
        pytest.param((b'"staging"', b'"undoing","facts":[]'), False, "object", id="facts that are none"),
        pytest.param((b'"staging"', b"7"), False, "int", id="a phase that is a number"),
    ],
)
def test_a_line_that_another_agent_wrote_in_another_form_stays_and_is_told(
    tmp_path: Path, change: tuple[bytes, bytes], is_at_rest: bool, reason: str
) -> None:
    mine = journal(tmp_path, versions=(2, 3), made_by="mathison-data 9")
    good = mine.open(state("good"))
    foreign = journal(tmp_path, versions=(2,), made_by="mathison-data 7").open(state("foreign"))
    path = tmp_path / "journal" / f"{foreign.key}.json"
    content = path.read_bytes().replace(*change)
    path.write_bytes(content)

    assert [entry.key for entry in mine.read()] == [good.key]

    [line] = mine.unknown
    assert path.read_bytes() == content
    assert line.is_at_rest is is_at_rest
    error = line.to_error()
    assert error.text.startswith("Import foreign was noted by mathison-data 7 in a form that this agent does not read")
    assert reason in error.text
    assert "Nothing was changed" in error.text
    assert "Start the agent of the version that noted it again" in error.next_step
    assert f"move {path} away" in error.next_step


def test_a_line_of_a_version_that_is_read_still_becomes_one_of_the_latest(tmp_path: Path) -> None:
    older = journal(tmp_path, versions=(1,)).open(state())
    older.save(database="app_new")
    mine = journal(tmp_path, versions=(1, 2), made_by="mathison-data 9")

    [entry] = mine.read()
    assert journal(tmp_path, versions=(1,)).read() != []
    entry.move(ImportPhase.KEPT, state())

    assert (entry.facts, mine.unknown) == ({"database": "app_new"}, [])
    again = journal(tmp_path, versions=(1,))
    assert again.read() == []
    assert "noted by mathison-data 9" in again.unknown[0].text


def test_a_line_of_another_version_that_a_person_moved_away_is_in_nobodys_way(tmp_path: Path) -> None:
    foreign = journal(tmp_path, versions=(2,)).open(state())
    mine = journal(tmp_path)
    mine.read()
    assert "noted by another agent" in mine.unknown[0].text

    (tmp_path / "journal" / f"{foreign.key}.json").rename(tmp_path / "away.json")

    assert mine.unknown == []


def test_what_is_no_file_is_told_too(tmp_path: Path) -> None:
    entry = journal(tmp_path).open(state())
    (tmp_path / "journal" / "000000000000.json").mkdir()
    mine = journal(tmp_path)

    assert [found.key for found in mine.read()] == [entry.key]
    assert ["Is a directory" in line.text for line in mine.unknown] == [True]


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    entry = journal(tmp_path).open(state())
    (tmp_path / "journal" / f".{entry.key}.json.x8k2").write_bytes(b"half")

    journal(tmp_path).read()

    assert os.listdir(tmp_path / "journal") == [f"{entry.key}.json"]


def test_a_write_that_fails_leaves_the_line_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = journal(tmp_path).open(state())
    entry.save(database="before")

    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(NoSpaceError):
        entry.save(database="after")
    monkeypatch.undo()

    (found,) = journal(tmp_path).read()
    assert found.facts == {"database": "before"}
    assert os.listdir(tmp_path / "journal") == [f"{entry.key}.json"]
