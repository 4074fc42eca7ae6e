"""A recipe's description of its app, which always comes: an app that hangs or a recipe at fault is an obstacle."""

from __future__ import annotations

import asyncio

import structlog

from agent.recipes.base import Capability, Description, Recipe
from common.errors import ServiceError

TIMEOUT_SECONDS = 10.0
"""Long for a version and a size, short for a person who looks at a list of apps."""
_log = structlog.get_logger(__name__)


async def describe(recipe: Recipe, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Description:
    """What `recipe.describe` says, or what kept it from saying it; never raises."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await recipe.describe()
    except TimeoutError:
        obstacle = f"The app did not answer within {timeout_seconds:.0f} seconds."
    except ServiceError as error:
        obstacle = error.text
    except Exception:
        _log.exception("The app could not be described.", action="describe")
        obstacle = "The app could not be described; the agent's log has the cause."
    return Description(engine="", can_export=Capability(obstacle), can_import=Capability(obstacle))
