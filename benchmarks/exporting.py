"""An export by a recipe alone, into a file: what its engine costs, without the way through agent and controller."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from agent.app_control import NoAppControl
from agent.limits import Limits
from agent.recipes.base import ExportOptions, Recipe, RecipeFactory, Surroundings
from agent.steps import Unwatched


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


def export(recipe: Recipe, path: Path, *, format_name: str, options: Mapping[str, str] | None = None) -> None:
    """Write an export to a file."""
    asyncio.run(_export(recipe, path, format_name, options or {}))


async def _export(recipe: Recipe, path: Path, format_name: str, options: Mapping[str, str]) -> None:
    (format,) = [found for found in recipe.export_formats if found.name == format_name]
    wanted = ExportOptions(format=format, app_id="bench.app", file_name=path.name, options=options)
    async with recipe.export_data(wanted, Unwatched()) as found:
        with path.open("wb") as file:
            async for chunk in found.chunks:
                file.write(chunk)
