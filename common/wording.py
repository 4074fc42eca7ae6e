"""Counts, lists and failures in texts for people."""

from __future__ import annotations

from collections.abc import Sequence

_SINGULARS = (("ies", "y"), ("xes", "x"), ("shes", "sh"), ("s", ""))


def counted(count: int, many: str, one: str = "") -> str:
    """For example "1 key" or "40,000 keys".

    Args:
        many: a plural that ends in s; what follows " in " stays as it is.
        one: the singular, where that is another word, or where a verb goes with it.
    """
    if count != 1:
        return f"{count:,} {many}"
    if one:
        return f"1 {one}"
    things, place, where = many.partition(" in ")
    for plural, singular in _SINGULARS:
        if things.endswith(plural):
            things = things.removesuffix(plural) + singular
            break
    return f"1 {things}{place}{where}"


def some_of(names: Sequence[str], most: int) -> str:
    """For example "a, b and 3 more"."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def sentence_of(failure: Exception) -> str:
    """For a program's last line: of the system's errors the file and what is wrong, without a number."""
    if isinstance(failure, OSError) and failure.filename is not None and failure.strerror:
        return f"{failure.filename}: {failure.strerror.lower()}."
    return str(failure)
