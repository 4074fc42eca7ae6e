"""Query parameters, read strictly: `?dryrun=true` would otherwise be a real import."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from common.errors import InvalidRequestError

_OPTION = "option."


@dataclass(frozen=True)
class Query:
    """The parameters of one request."""

    values: dict[str, str]
    options: dict[str, str]
    """The recipe's own, from `option.<name>=`."""

    def text(self, name: str) -> str:
        return self.values.get(name, "")

    def flag(self, name: str) -> bool:
        """False when it is not there; InvalidRequestError unless it is "true" or "false"."""
        value = self.values.get(name, "false")
        if value not in ("true", "false"):
            raise InvalidRequestError(f"The parameter {name!r} is true or false, not {value!r}.")
        return value == "true"


def read_query(request: web.Request, *known: str, takes_options: bool = False) -> Query:
    """InvalidRequestError for a parameter that the route does not know, or that is there twice."""
    values: dict[str, str] = {}
    options: dict[str, str] = {}
    for name, value in request.query.items():
        bare = name.removeprefix(_OPTION)  # some options may be given without the prefix
        if bare in values or bare in options:
            raise InvalidRequestError(f"The parameter {name!r} is there twice.")
        if name in known:
            values[name] = value
        elif takes_options and name.startswith(_OPTION) and name != _OPTION:
            options[name.removeprefix(_OPTION)] = value
        else:
            raise InvalidRequestError(
                f"The parameter {name!r} is not known here.",
                next_step=f"An option of the app's recipe is given as {_OPTION}{name}=…" if takes_options else "",
            )
    return Query(values, options)
