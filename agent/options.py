"""The options of an export or import that are the recipe's own, as a caller gave them: names and texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from common.errors import InvalidRequestError


def require_known(options: Mapping[str, str], known: Collection[str], *, what: str) -> None:
    """InvalidRequestError for an option that is none of those known.

    Args:
        what: the text begins with it, for example "An export of MariaDB".
    """
    if unknown := sorted(options.keys() - set(known)):
        there_are = f"; there are {', '.join(sorted(known))}" if known else ""
        raise InvalidRequestError(f"{what} has no option {unknown[0]!r}{there_are}.")


def choices_of(options: Mapping[str, str], known: Mapping[str, tuple[str, ...]], *, what: str) -> dict[str, str]:
    """All known options with their values; InvalidRequestError for another option or value.

    Args:
        known: by name the values that it may have; the first is the default.
        what: as of `require_known`.
    """
    for name, value in options.items():
        if value not in known.get(name, ()):
            there_are = "; ".join(f"{found}: {' or '.join(values)}" for found, values in known.items())
            raise InvalidRequestError(f"{what} has no option {name}={value}. There are {there_are}.")
    return {name: options.get(name, values[0]) for name, values in known.items()}


def is_wanted(options: Mapping[str, str], name: str, *, otherwise: bool) -> bool:
    """What an option says that is yes or no; InvalidRequestError when it says something else.

    Args:
        otherwise: what holds when it is not given.
    """
    match options.get(name, ""):
        case "":
            return otherwise
        case "yes" | "no" as said:
            return said == "yes"
        case other:
            raise InvalidRequestError(f"The option {name} is yes or no, not {other!r}.")


def wants_fingerprint(options: Mapping[str, str]) -> bool:
    """The option `fingerprint` of an export, yes when it is not given; raises as `is_wanted`."""
    return is_wanted(options, "fingerprint", otherwise=True)
