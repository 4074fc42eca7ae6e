"""What people see and what scripts read.

Standard output carries the result and nothing else: sentences and tables for people, or one JSON document. Progress,
questions, warnings and errors go to standard error. A reader who leaves early changes nothing: the exit code still
tells what became of the command. Text that came from elsewhere (a controller, an archive) passes through `printable`,
so it can neither steer the terminal nor add a line that looks like one of ours.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from cli.exit_codes import ExitCode
from cli.failures import Explanation
from cli.streams import lead_nowhere
from common.wording import counted

_DATABASE = re.compile(r"^database (?=\d+$)")
"""Redis counts its keys by the number of the database."""
_NOT_WRITING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control and format characters, halves of characters, ends of lines and paragraphs."""
_FURTHER_LINE = "\n    | "
"""Begins each line but the first of an error, which may quote lines of a program; nothing else looks like it."""


class _Stream(Console):
    """Standard output or standard error; whose reader has gone falls silent, and the command goes on."""

    def __init__(self, *, is_errors: bool = False) -> None:
        super().__init__(stderr=is_errors, highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Say no more, and drop what is buffered."""
        self.quiet = True
        lead_nowhere(self.file)


class _Complaints(_Stream):
    """Standard error, which falls silent as well when it cannot be written: the exit code tells."""

    def __init__(self) -> None:
        super().__init__(is_errors=True)

    def print(self, *objects: Any, **arguments: Any) -> None:
        try:
            super().print(*objects, **arguments)
        except OSError:
            self.on_broken_pipe()


class Output:
    """Where a command speaks. `is_quiet` leaves errors and JSON only."""

    def __init__(self, *, is_json: bool, is_quiet: bool) -> None:
        self.is_json = is_json
        self.is_quiet = is_quiet
        self.errors = _Complaints()
        self._warned: set[str] = set()
        self._results = _Stream()

    def json(self, value: object) -> None:
        """The command's one JSON document, on one line."""
        try:
            text = msgspec.json.encode(value).decode()
        except UnicodeEncodeError:  # a file's name that is no UTF-8; as escapes that Python's json reads back
            text = json.dumps(msgspec.to_builtins(value), separators=(",", ":"))
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            self.drop_results()

    def drop_results(self) -> None:
        """Standard output cannot be written any more."""
        self._results.on_broken_pipe()

    def say(self, text: str = "", *, style: str = "", is_result: bool = True) -> None:
        """A sentence for a person; `is_result=False` sends it to standard error."""
        if not self.is_quiet:
            (self._results if is_result else self.errors).print(Text(printable(text), style=style))

    def warn(self, text: str) -> None:
        """A sentence that a person should not miss; said once, though an app and its export both have it."""
        if not self.is_quiet:
            self.warn_urgently(text)

    def warn_urgently(self, text: str) -> None:
        """As `warn`, of what does not go on without somebody: said to the quiet, too."""
        if text not in self._warned:
            self._warned.add(text)
            self.errors.print(Text("Warning: ", style="yellow") + Text(printable(text)))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
        """Rows under headings. The last column may hold sentences: it is the only one that a terminal has to wrap."""
        cells = [[Text(column, style="bold") for column in columns]]
        cells += [[Text(printable(cell)) if isinstance(cell, str) else cell for cell in row] for row in rows]
        self._columns(self._results, cells)

    def facts(self, facts: Mapping[str, str], *, is_result: bool = True) -> None:
        """Names and values in two columns, what is empty left out."""
        cells = [
            [Text("  " + printable(name), style="dim"), Text(printable(value))]
            for name, value in facts.items()
            if value
        ]
        self._columns(self._results if is_result else self.errors, cells)

    def _columns(self, console: Console, rows: Sequence[Sequence[Text]]) -> None:
        if self.is_quiet:
            return
        widths = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
        for row in rows:
            line = Text()
            for cell, width in zip(row[:-1], widths, strict=False):
                line += cell + Text(" " * (width - cell.cell_len + 2))
            console.print(line + row[-1])

    def fail(self, explanation: Explanation) -> None:
        """An error instead of a result: with `--json` it is the document."""
        if self.is_json:
            try:
                self.json({"error": explanation})
            except OSError:
                self.drop_results()
        self.complain(explanation)

    def complain(self, explanation: Explanation) -> None:
        """An error on standard error: what is wrong, and what to do."""
        # That somebody stopped it, or said no, is no error.
        prefix = "" if explanation.exit_code == ExitCode.INTERRUPTED else "Error: "
        message = _FURTHER_LINE.join(printable(line) for line in explanation.message.splitlines())
        self.errors.print(Text(prefix, style="bold red") + Text(message))
        if explanation.next_step:
            self.errors.print(Text(printable(explanation.next_step)))

    def ask(self, *lines: str) -> None:
        """A question to be answered by yes or no."""
        question = "\n".join(printable(line) for line in lines)
        self.errors.print(Text(question, style="bold") + Text(" [y/N] "), end="")


def printable(text: str) -> str:
    """The text on one line: control and direction characters and line ends as escapes, for example "\\n"."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _NOT_WRITING else character
        for character in text
    )


def size_text(size_bytes: int) -> str:
    """For example "12.3 MiB"; empty for zero, which means "not known"."""
    if size_bytes <= 0:
        return ""
    size, unit = float(size_bytes), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1000 or unit == "TiB":
            break
        size /= 1024
    return f"{size_bytes} bytes" if unit == "bytes" else f"{size:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """For example "2 min 05 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def moment_text(moment: dt.datetime | None) -> str:
    """In the reader's own time zone, for example "2026-11-23 18:40"; empty for None."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else ""


def counts_text(counts: Mapping[str, int]) -> str:
    """For example "12 tables, 40,000 rows": the few things first, what is zero left out."""
    told = {
        _DATABASE.sub("keys in database ", name.replace("_", " ")): count for name, count in counts.items() if count
    }
    ordered = sorted((count, name) for name, count in told.items())
    return ", ".join(counted(count, name) for count, name in ordered)
