from __future__ import annotations

from importlib.metadata import version

from common.version import VERSION


def test_the_version_is_that_of_the_package() -> None:
    assert version("mathison-data") == VERSION
