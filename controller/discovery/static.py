"""Discovery on one machine: the apps are those in the settings file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import structlog

from common.settings_files import SettingsError
from controller.discovery.inventory import App, Inventory
from controller.settings import AppSettings, load_settings

_log = structlog.get_logger(__name__)


def apps_of(settings: Iterable[AppSettings]) -> list[App]:
    return [App(id=app.id, agent=app.agent, recipe=app.recipe) for app in settings]


def read_again(path: Path, inventory: Inventory) -> None:
    """Take over the list of apps as it is in the file now; a file that cannot be used changes nothing."""
    try:
        apps = apps_of(load_settings(path).apps)
    except SettingsError as failure:
        _log.error("The settings cannot be read again; the apps stay as they are.", action="reload", error=str(failure))
        return
    inventory.replace(apps)
    _log.info("The list of apps was read again.", action="reload", apps=[app.id for app in apps])
