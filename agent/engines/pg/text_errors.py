"""What is wrong with an SQL text, said in the child that reads it.

The classes of common.errors would bring gRPC into that child; so it names an error's reason, and the agent makes the
error of it.
"""

from __future__ import annotations


class TextError(Exception):
    """What is wrong with the text, as reason and text of the error that its sender gets; see common.errors."""

    def __init__(self, reason: str, text: str, *, next_step: str = "") -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.next_step = next_step


def made_with_create(line: int) -> TextError:
    """The refusal of a dump that brings its own database."""
    return TextError(
        "ARCHIVE_REFUSED",
        f"Line {line}: the dump was made with --create, so it wants to make a database of its own.",
        next_step="Dump without --create (-C).",
    )


def client_command(line: int) -> TextError:
    """The refusal of a backslash command."""
    return TextError(
        "ARCHIVE_REFUSED",
        f"Line {line}: the file tries to run a client command.",
        next_step="A dump made by pg_dump has no such line; make a new one.",
    )


def refused_by_check(said: str) -> TextError:
    """The refusal of a file of which a function did harm while it was loaded, as our own check found."""
    return TextError(
        "ARCHIVE_REFUSED",
        f"PostgreSQL: {said}.",
        next_step="A function in the file did that while rows were loaded; do not import this file, make a new dump.",
    )
