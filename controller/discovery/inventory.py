"""The apps that there are now. Whoever discovers them replaces the list; everyone else only reads it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common.errors import AppNotFoundError


@dataclass(frozen=True)
class App:
    """One app and where its agent listens."""

    id: str
    """"<workspace>.<name>"."""
    agent: str
    """host:port."""
    recipe: str = ""
    """Empty: only its agent knows."""

    @property
    def workspace(self) -> str:
        return self.id.partition(".")[0]

    @property
    def name(self) -> str:
        return self.id.partition(".")[2]


class Inventory:
    """All known apps, in the order of their ids."""

    def __init__(self, apps: Iterable[App] = ()) -> None:
        self.replace(apps)

    def replace(self, apps: Iterable[App]) -> None:
        self._apps = {app.id: app for app in sorted(apps, key=lambda app: app.id)}

    def all(self) -> tuple[App, ...]:
        return tuple(self._apps.values())

    def get(self, app_id: str) -> App:
        """AppNotFoundError for an id that is not there."""
        try:
            return self._apps[app_id]
        except KeyError:
            raise app_not_found(app_id) from None


def app_not_found(app_id: str) -> AppNotFoundError:
    """The same words whether there is none or the caller may not see it."""
    return AppNotFoundError(f"There is no app {app_id[:128]!r}.", next_step="Look at the list of apps.")
