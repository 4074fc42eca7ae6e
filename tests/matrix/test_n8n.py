"""n8n 1 and 2, keys rotated and not, on SQLite and PostgreSQL, each into each."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from common.errors import ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.n8n_data import MIGRATIONS, NEW_KEY, OLD_KEY, N8n
from tests.integration.agent.recipes.n8n_apps import MakePair, N8nApp, make_pair
from tests.matrix.cells import Cell, Note

__all__ = ["make_pair"]

TITLE = "n8n"
ENGINES = ("SQLite", "PostgreSQL")
FORMS: dict[str, dict[str, Any]] = {
    "1.x": {"is_version_2": False, "migrations": MIGRATIONS[:-1]},
    "2.x": {},
    "2.x, keys rotated": {"is_rotating": True},
}
CELLS = list(itertools.product(itertools.product(FORMS, ENGINES), repeat=2))


@pytest.mark.parametrize(("source_is", "target_is"), CELLS, ids=lambda one: " on ".join(one))
async def test_content_is_equal_or_refused_before_anything_changed(
    source_is: tuple[str, str], target_is: tuple[str, str], make_pair: MakePair, tmp_path: Path, note: Note
) -> None:
    def made(name: str, form: str, engine: str, **facts: Any) -> N8nApp:
        if engine == "PostgreSQL":
            return make_pair(name, **FORMS[form], **facts).app
        return N8nApp(N8n(tmp_path / name, **FORMS[form], **facts).make())

    source = made("source", *source_is)
    target = made("target", *target_is, key=NEW_KEY, mark="present", workflows=1)
    before = await target.fingerprint()
    exported = await source.export(key="clear")
    is_newer = source_is[0] != "1.x" and target_is[0] == "1.x"

    if is_newer or source_is[1] != target_is[1]:
        with pytest.raises(ArchiveIncompatibleError) as refusal:
            await target.stage(exported.content, record := MemoryRecord())
        await target.recipe.discard(record)

        assert (await target.fingerprint()).differences(before) == []
        assert not target.has_leftovers
        outcome = refusal.value.reason
    else:
        await target.import_(exported.content)

        assert exported.fingerprint is not None
        assert (await target.fingerprint()).differences(exported.fingerprint) == []
        in_clear = {**source.n8n.secrets(OLD_KEY)}
        if "data_encryption aes-256-cbc" in in_clear:
            # The instance's key itself.
            in_clear["data_encryption aes-256-cbc"] = NEW_KEY
        assert target.n8n.secrets(NEW_KEY) == in_clear
        outcome = "equal"
    note(Cell(TITLE, ", on ".join(source_is), ", on ".join(target_is), outcome))
