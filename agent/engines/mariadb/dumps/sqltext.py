"""A dump's text as single statements, told apart as the server does.

Comments are left out, so client and server never see one. The one fact to know: text in /*!12345 … */ is code for
servers of that version and a comment for others, so it is let through only where both see the same end of it, or where
no server takes it for a comment. There its end may stand in a string or name before.

What stands between DELIMITER lines (bodies of triggers and the like) is not looked into here: see `definitions`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_STATEMENT_BYTES = 256 << 20
# No possessive quantifiers: before Python 3.11.5 they lose their way within groups (gh-106052). So what may repeat is
# written so that a text can be read in one way only.
STRINGS = rb"'[^'\\]*(?:\\.[^'\\]*)*'" rb'|"[^"\\]*(?:\\.[^"\\]*)*"' rb"|`[^`]*`"
_RUN = re.compile(rb"(?:[^'\"`;\\/#\-]+|%b|-(?!-)|/(?!\*)){1,2000}" % STRINGS, re.DOTALL)
_LINE_COMMENT = re.compile(rb"(?:--(?=[\x00-\x20])|#)[^\n]*\n")
_LAST_LINE_COMMENT = re.compile(rb"(?:--(?=[\x00-\x20]|\Z)|#)[^\n]*\Z")
_COMMENT = re.compile(rb"/\*(?!M?!).*?\*/", re.DOTALL)
_CODE_COMMENT = re.compile(rb"/\*M?!(\d*)(.*?)\*/", re.DOTALL)
_EVERYWHERE_CODE = rb"/\*!(?:[0-4]\d{4}|50[0-6]\d\d)(?!\d)"
"""Of versions that all servers have passed; those from 50700 on are MySQL's, which MariaDB passes over."""
_EVERYWHERE = re.compile(
    rb"%b((?:[^'\"`;\\/#*\-]|%b|-(?!-)|/(?!\*)|\*(?!/))*)(\*/)?" % (_EVERYWHERE_CODE, STRINGS), re.DOTALL
)
_INSIDE = re.compile(rb"(?:[^'\"`;\\/#\-]|%b|-(?!-)|/)*" % STRINGS, re.DOTALL)
_MAX_INSIDE_BYTES = 1 << 16
_MASKED = re.compile(STRINGS, re.DOTALL)
_MARKERS = re.compile(rb"/\*M?!\d*|\*/")
_SANDBOX = re.compile(rb"/\*M?!999999\\- enable the sandbox mode \*/")
_BLANKS = re.compile(rb"[ \t\r\n]+")
_DELIMITER = re.compile(rb"DELIMITER[ \t]+([^\s\\'\"`]{1,16})[ \t]*\r?\n", re.IGNORECASE)
_MAX_RAW_BYTES = 4 << 20
_COMMAND_BYTES = 100
"""To say what a client command is, so much of it is looked at."""
_LOOK_AHEAD_BYTES = 3
"""To tell `--` and `/*` from what looks like them, a piece is read so far before its end."""


class SqlTextError(Exception):
    """The text is none that a dump has; the text says why."""


class CutTextError(SqlTextError):
    """The text ends within a statement, string or comment."""


@dataclass(frozen=True)
class Statement:
    """One statement without its semicolon.

    Attributes:
        text: to be sent, comments left out.
        line: where it begins in the file, for a person.
        is_raw: written between DELIMITER lines and not looked into: it may be several, and holds its comments.
    """

    text: bytes
    line: int
    is_raw: bool = False

    @property
    def code(self) -> bytes:
        """The words alone, for judging: strings and names emptied, code in comments laid open, blanks made one."""
        masked = _MASKED.sub(lambda found: found[0][:1] * 2, _MARKERS.sub(b" ", self.text))
        return b" ".join(masked.split())

    @property
    def first_words(self) -> str:
        """For a person, without what is in strings and names."""
        words = self.code[:200].split(b" ")[:4]
        return " ".join(word.decode("utf-8", "replace") for word in words)


class Splitter:
    """Takes a text in pieces.

    Attributes:
        last_comment: the last comment line that was met, without its end.
        is_after_comment: nothing but blanks came after it.
    """

    def __init__(self) -> None:
        self.last_comment = b""
        self.is_after_comment = False
        self._buffer = bytearray()
        self._at = 0
        self._enough_bytes = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._line = 1
        self._delimiter = b";"
        self._is_blank = True

    def add(self, piece: bytes) -> Iterator[Statement]:
        """The statements that are complete by now.

        Raises:
            SqlTextError: there is something that no dump has.
        """
        self._buffer += piece
        if len(self._buffer) < self._enough_bytes:
            return
        yield from self._statements(is_last=False)
        del self._buffer[: self._at]
        self._at = 0
        # It is read from its beginning again: a long string as often as it doubles, not with each piece of it.
        self._enough_bytes = min(2 * len(self._buffer), MAX_STATEMENT_BYTES - self._size)
        if self._size + len(self._buffer) > MAX_STATEMENT_BYTES:
            line = self._line_of_first()
            raise SqlTextError(f"line {line}: a statement is longer than {MAX_STATEMENT_BYTES >> 20} MiB")

    def finish(self) -> Iterator[Statement]:
        """The rest; CutTextError when the text ends within something."""
        yield from self._statements(is_last=True)
        if self._at < len(self._buffer) or b"".join(self._parts).strip():
            raise CutTextError(f"the file ends in the middle of what begins in line {self._line_of_first()}")

    @property
    def unended(self) -> Statement | None:
        """After `finish`, what stands there without a semicolon; None: nothing, or the text ends within a string."""
        text = b"".join(self._parts).strip()
        return Statement(text, self._line_of_first()) if text and self._at == len(self._buffer) else None

    def _statements(self, *, is_last: bool) -> Iterator[Statement]:
        buffer = self._buffer
        end = len(buffer) if is_last else len(buffer) - _LOOK_AHEAD_BYTES
        while self._at < end:
            if self._is_blank and self._is_before_delimiter(is_last=is_last):
                if not self._take_delimiter():
                    return
                continue
            if self._delimiter != b";":
                raw = self._raw(is_last=is_last)
                if raw is None:
                    return
                if raw.text:
                    yield raw
                continue
            if found := _RUN.match(buffer, self._at, end):
                stop = found.end()
                if stop == end and not is_last and buffer[stop - 1] in b"-/":
                    stop -= 1
                if stop == self._at:
                    return
                self._take(bytes(buffer[self._at : stop]), stop)
                continue
            match buffer[self._at : self._at + 1]:
                case b";":
                    statement = Statement(b"".join(self._parts).strip(), self._line_of_first())
                    self._line = self._line_here()
                    self._parts, self._size, self._is_blank = [], 0, True
                    self._at += 1
                    if statement.text:
                        yield statement
                case b"\\":
                    command = bytes(buffer[self._at : self._at + _COMMAND_BYTES])
                    if b"\n" not in command and len(command) < _COMMAND_BYTES and not is_last:
                        # Its words have not come yet.
                        return
                    line = self._line_here()
                    words = Statement(command.partition(b"\n")[0], line).first_words
                    raise SqlTextError(f"line {line}: the file tries to run a client command: {words}")
                case b"/":
                    if not self._skip_block(is_last=is_last):
                        return
                case b"-" | b"#":
                    if not self._skip_line(is_last=is_last):
                        return
                case _:
                    # A string whose end has not come yet.
                    return

    def _is_before_delimiter(self, *, is_last: bool) -> bool:
        """Whether the next word is DELIMITER, or may become it."""
        if blanks := _BLANKS.match(self._buffer, self._at):
            self._parts.append(b"\n" * bytes(blanks[0]).count(b"\n"))
            self._at = blanks.end()
        word = bytes(self._buffer[self._at : self._at + len(b"DELIMITER")]).upper()
        return word == b"DELIMITER" or (not is_last and word != b"" and b"DELIMITER".startswith(word))

    def _take_delimiter(self) -> bool:
        """Go over a line that says what ends statements from here on; False: its end has not come yet."""
        found = _DELIMITER.match(self._buffer, self._at)
        if found is None:
            if self._buffer.find(b"\n", self._at) >= 0:
                raise SqlTextError(f"line {self._line_here()}: DELIMITER with something else than a delimiter")
            return False
        self._line = self._line_here() + 1
        self._parts = []
        self._delimiter = bytes(found[1])
        self._at = found.end()
        return True

    def _raw(self, *, is_last: bool) -> Statement | None:
        """What stands before the next delimiter at the end of a line; None: that has not come yet."""
        end = re.compile(re.escape(self._delimiter) + rb"[ \t]*\r?\n")
        found = end.search(self._buffer, self._at)
        if found is None:
            if len(self._buffer) - self._at > _MAX_RAW_BYTES:
                raise SqlTextError(f"line {self._line_here()}: a definition is longer than {_MAX_RAW_BYTES >> 20} MiB")
            return None
        text = bytes(self._buffer[self._at : found.start()])
        self._line = self._line_here()
        statement = Statement(text.strip(), self._line, is_raw=True)
        self._line += text.count(b"\n") + 1
        self._parts = []
        self._at = found.end()
        self.is_after_comment = False
        return statement

    def _take(self, part: bytes, stop: int) -> None:
        self._parts.append(part)
        self._size += len(part)
        self._at = stop
        if not part.isspace():
            self.is_after_comment = self._is_blank = False

    def _skip_line(self, *, is_last: bool) -> bool:
        found = _LINE_COMMENT.match(self._buffer, self._at)
        if found is None and is_last:
            found = _LAST_LINE_COMMENT.match(self._buffer, self._at)
        if found is None:
            if self._buffer.find(b"\n", self._at) >= 0 or is_last:
                # Two minus signs without a blank: arithmetic, which no dump has.
                raise SqlTextError(f"line {self._line_here()}: there is '--' outside of a comment")
            return False
        if found[0].strip(b"-# \r\n"):
            self.last_comment, self.is_after_comment = bytes(found[0]).rstrip(), True
        self._take(b"\n", found.end())
        self.is_after_comment = True
        return True

    def _skip_block(self, *, is_last: bool) -> bool:
        if found := _SANDBOX.match(self._buffer, self._at):
            self._take(b"\n" * bytes(found[0]).count(b"\n"), found.end())
            return True
        if found := _COMMENT.match(self._buffer, self._at):
            self._parts.append(b" " + b"\n" * bytes(found[0]).count(b"\n"))
            self._at = found.end()
            return True
        if found := _EVERYWHERE.match(self._buffer, self._at):
            if found[2]:
                self._take(bytes(found[0]), found.end())
                return True
            # Before a string whose end has not come yet, or at the end of what has come.
            if len(found[0]) > _MAX_INSIDE_BYTES or self._buffer[found.end() : found.end() + 1] not in b"'\"`":
                raise SqlTextError(f"line {self._line_here()}: a comment with code in it is none that a dump has")
        elif found := _CODE_COMMENT.match(self._buffer, self._at):
            inside = bytes(found[2])
            # The star of the end, too: for a server that takes `/*!99999 /*/` for code it begins another comment.
            if len(inside) > _MAX_INSIDE_BYTES or b"/*" in inside + b"*" or not _INSIDE.fullmatch(inside):
                raise SqlTextError(f"line {self._line_here()}: a comment with code in it is none that a dump has")
            self._take(bytes(found[0]), found.end())
            return True
        if is_last:
            raise CutTextError(f"the file ends within the comment that begins in line {self._line_here()}")
        return False

    def _line_here(self) -> int:
        return self._line + sum(part.count(b"\n") for part in self._parts)

    def _line_of_first(self) -> int:
        """The line of the first word that is not blank."""
        text = b"".join(self._parts)
        return self._line + text[: len(text) - len(text.lstrip())].count(b"\n")
