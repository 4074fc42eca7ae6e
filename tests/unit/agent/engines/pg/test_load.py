"""What an upload says of itself before it is loaded."""

from __future__ import annotations

import pytest

from agent.engines.pg.loading.load import require_own
from common.errors import ArchiveWrongKindError
from common.headers import ArchiveHeader


def test_an_export_of_another_recipe_is_of_the_wrong_kind() -> None:
    with pytest.raises(ArchiveWrongKindError, match="of recipe 'redis'; this app takes those of 'postgresql'"):
        require_own(ArchiveHeader(recipe="redis"))


@pytest.mark.parametrize("header", [None, ArchiveHeader(), ArchiveHeader(recipe="postgresql")])
def test_an_export_of_this_recipe_or_of_somebody_else_is_taken(header: ArchiveHeader | None) -> None:
    require_own(header)
