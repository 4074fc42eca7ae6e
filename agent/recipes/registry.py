"""The table of all recipes: ours by name, other people's by the entry point group `mathison.data.recipes`.

A recipe's module is imported only when it is asked for, so an agent holds in memory what its one app needs.
"""

from __future__ import annotations

import importlib

from agent.recipes.base import Recipe
from common.errors import InvalidRequestError

ENTRY_POINT_GROUP = "mathison.data.recipes"

RECIPES = {
    "mariadb": "agent.recipes.mariadb:MariadbRecipe",
    "minio": "agent.recipes.minio:MinioRecipe",
    "n8n": "agent.recipes.n8n:N8nRecipe",
    "postgresql": "agent.recipes.postgresql:PostgresqlRecipe",
    "redis": "agent.recipes.redis:RedisRecipe",
    "uptime-kuma": "agent.recipes.uptime_kuma:UptimeKumaRecipe",
    "volume": "agent.recipes.volume:VolumeRecipe",
}
"""Ours; an entry point of the same name does not replace them."""


def recipe_names() -> list[str]:
    """All names that `find_recipe` knows, sorted."""
    from importlib.metadata import entry_points  # 3 MiB, which an agent with one of our recipes does without

    return sorted({*RECIPES, *(found.name for found in entry_points(group=ENTRY_POINT_GROUP))})


def find_recipe(name: str) -> type[Recipe]:
    """The recipe of that name.

    Raises:
        InvalidRequestError: unknown, or an entry point's module cannot be imported or is no Recipe.
    """
    if target := RECIPES.get(name):
        module, _, attribute = target.partition(":")
        found: object = getattr(importlib.import_module(module), attribute)
    else:
        from importlib.metadata import entry_points

        installed = entry_points(group=ENTRY_POINT_GROUP, name=name)
        if not installed:
            raise InvalidRequestError(f"There is no recipe {name!r}; there are {', '.join(recipe_names())}.")
        try:
            found = next(iter(installed)).load()
        except (ImportError, AttributeError) as failure:
            raise InvalidRequestError(f"The recipe {name!r} is installed but cannot be loaded: {failure}.") from failure
    if not (isinstance(found, type) and issubclass(found, Recipe)):
        raise InvalidRequestError(f"What is installed as recipe {name!r} is not a Recipe.")
    return found
