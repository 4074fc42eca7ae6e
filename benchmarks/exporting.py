"""An export by a recipe alone, into a file: what its engine costs, without the way through agent and controller."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from agent.app_control import NoAppControl
from agent.limits import Limits
from agent.recipes.base import ExportOptions, Recipe, RecipeFactory, Surroundings
from agent.steps import Unwatched
from common.headers import ArchiveHeader


def make_recipe(factory: RecipeFactory, folder: Path, settings: Mapping[str, object]) -> Recipe:
    """A recipe that works in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return factory(
        Surroundings(
            app_id="bench.app",
            work_directory=folder,
            limits=Limits(),
            app_control=NoAppControl(),
            settings=settings,
        )
    )


def export(recipe: Recipe, path: Path, *, format_name: str, options: Mapping[str, str] | None = None) -> ArchiveHeader:
    """Write an export to a file; what it says of itself."""
    return asyncio.run(write_export(recipe, path, format_name=format_name, options=options or {}))


async def write_export(recipe: Recipe, path: Path, *, format_name: str, options: Mapping[str, str]) -> ArchiveHeader:
    """As `export`."""
    (format,) = [found for found in recipe.export_formats if found.name == format_name]
    wanted = ExportOptions(format=format, app_id="bench.app", file_name=path.name, options=options)
    async with recipe.export_data(wanted, Unwatched()) as found:
        with path.open("wb") as file:
            async for chunk in found.chunks:
                file.write(chunk)
    return found.header
