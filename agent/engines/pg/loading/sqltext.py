"""The text of an SQL dump, taken apart while it streams: statements, rows of COPY blocks, pg_dump's own comments.

It reads as psql's lexer does (src/fe_utils/psqlscan.l), with one difference: a backslash command is refused, never
obeyed. What a statement means is not looked at here. Imports little: it runs in a child that has to stay small.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from agent.engines.pg.loading import sql_tokens as tokens
from agent.engines.pg.loading.dump_comments import DumpFacts, Entry
from agent.engines.pg.server.text_errors import TextError, client_command, made_with_create

STATEMENT_LIMIT_BYTES = 256 << 20
_HELD_ROW_BYTES = 256 << 10
"""A row that is longer is passed on in parts."""
_HELD_LINE_BYTES = 64 << 10
"""A comment or client command that is longer is not looked at whole."""
_HELD_WORD_BYTES = 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement without what stood before it, and without its semicolon.

    Attributes:
        line: where it begins, from 1.
        entry: pg_dump's, or None before the first one. Only a hint: anyone can write such comments.
        has_rows: it is a COPY FROM STDIN, and Rows and an EndOfRows follow.
    """

    text: bytes
    line: int
    entry: Entry | None = None
    has_rows: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """Bytes of a COPY block: whole lines, or a part of one line."""

    data: bytes
    ends_row: bool
    """False: the next Rows go on with the same line."""


@dataclass(frozen=True, slots=True)
class EndOfRows:
    """The end mark of a COPY block."""


Event: TypeAlias = Statement | Rows | EndOfRows


@dataclass
class _Pending:
    """The statement being read."""

    line: int = 0
    parts: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    parentheses: int = 0
    """How many are open."""
    blocks: int = 0
    """Open BEGIN ATOMIC and CASE of a function's body."""
    words: int = 0
    """How far its first words go towards CREATE OR REPLACE FUNCTION."""


class Splitter:
    """Takes text in chunks of any size; the events do not depend on where the chunks were cut, but for Rows.

    Each state is a method that takes the text and where to go on, and returns how far it came; `_waits` says that it
    needs more text to decide what is there.

    Attributes:
        facts: what the comments said so far.
        line: the line that was reached.
        size_bytes: how much text there was so far.
        has_standard_strings: backslashes in strings are ordinary; may be set to what the server says.
    """

    def __init__(self, *, statement_limit_bytes: int = STATEMENT_LIMIT_BYTES, joins_inserts: bool = True) -> None:
        """
        Args:
            joins_inserts: consecutive INSERT statements may come as one Statement, with the semicolons between them.
        """
        self.facts = DumpFacts()
        self.line = 1
        self.size_bytes = 0
        self._limit_bytes = statement_limit_bytes
        self._joins_inserts = joins_inserts
        self.has_standard_strings = True
        self._event: Event | None = None
        self._held = b""
        self._counted = 0
        self._waits = False
        self._state: Callable[[bytes, int], int] = self._opening
        self._back: Callable[[bytes, int], int] = self._between
        self._pending: _Pending | None = None
        self._start = 0
        self._tag = b""
        self._comments = 0
        self._restriction: bytes | None = None
        self._has_gap = self._has_line_gap = False
        self._is_row_start = True

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """What became complete with this chunk; to be taken to its end before the next chunk.

        Raises:
            TextError: a client command, a statement over the limit, a zero byte.
        """
        self.size_bytes += len(chunk)
        text = self._held + chunk if self._held else chunk
        at = 0
        while at < len(text) and not self._waits:
            at = self._state(text, at)
            if self._event is not None:
                event, self._event = self._event, None
                yield event
        self._waits = False
        if self._pending is not None:
            self._keep(self._pending, text[self._start : at])
            self._start = 0
        self._count_lines(text, at)
        self._counted = 0
        self._held = text[at:]

    def finish(self) -> Iterator[Event]:
        """The text has ended.

        Raises:
            TextError: it is cut off.
        """
        yield from self.feed(b"\n")
        self.facts.require_whole(is_between_statements=self._state == self._between and not self._held)

    def _wait(self, at: int) -> int:
        self._waits = True
        return at

    def _count_lines(self, text: bytes, at: int) -> None:
        self.line += text.count(b"\n", self._counted, at)
        self._counted = at

    # Between statements.

    def _opening(self, text: bytes, at: int) -> int:
        if _BOM.startswith(text):
            return self._wait(at)
        self._state = self._between
        return len(_BOM) if text.startswith(_BOM) else at

    def _between(self, text: bytes, at: int) -> int:
        at = _end(tokens.SPACE_OR_EMPTY, text, at)
        first = text[at : at + 2]
        if first in (b"-", b"/"):
            return self._wait(at)
        if first == b"--":
            return self._comment(text, at)
        if first == b"/*":
            return self._begin_comment(text, at)
        if first[:1] == b"\\":
            return self._client_command(text, at)
        return self._begin_statement(text, at) if first else at

    def _comment(self, text: bytes, at: int) -> int:
        end = text.find(b"\n", at)
        if (end if end >= 0 else len(text)) - at > _HELD_LINE_BYTES:
            self._state, self._back = self._line_comment, self._between
            return at
        if end < 0:
            return self._wait(at)
        self.facts.add(text[at:end].rstrip(b"\r"))
        return end

    def _client_command(self, text: bytes, at: int) -> int:
        end = text.find(b"\n", at)
        if end < 0 and len(text) - at < _HELD_LINE_BYTES:
            return self._wait(at)
        command = text[at : end if end >= 0 else len(text)]
        if self._is_restriction(command):
            return end
        self._count_lines(text, at)
        if tokens.CONNECT.match(command):
            raise made_with_create(self.line)
        raise client_command(self.line)

    def _is_restriction(self, command: bytes) -> bool:
        """pg_dump writes a pair of commands around everything, with a key of its own; nothing else may stand there."""
        found = tokens.RESTRICT.match(command)
        if found is None or (self._restriction or b"") != (found[2] if found[1] else b""):
            return False
        self._restriction = None if found[1] else found[2]
        return True

    # In a statement.

    def _begin_statement(self, text: bytes, at: int) -> int:
        self._count_lines(text, at)
        self._start, self._pending = at, _Pending(self.line)
        inserts = self._joins_inserts and tokens.INSERTS[self.has_standard_strings].match(text, at)
        if inserts:
            return self._end_statement(self._pending, text, inserts.end())
        self._state = self._words
        return at

    def _words(self, text: bytes, at: int) -> int:
        """The first words, one by one, until it is clear whether they make a function."""
        pending, since = _some(self._pending), at
        while pending.words < tokens.NO_FUNCTION:
            at = _end(tokens.BEFORE_WORD, text, at)
            word = tokens.WORD_TOKEN.match(text, at)
            if at == len(text) or (word and word.end() == len(text)):
                return self._wait_for_word(text, since)
            if word is None or text[at + 1 : at + 2] == b"'":
                break
            pending.words = tokens.FIRST_WORDS.get((pending.words, word[0].lower()), tokens.NO_FUNCTION)
            since = at = word.end()
        if text[at : at + 2] in (b"--", b"/*"):
            return self._begin_comment(text, at)
        pending.words = max(pending.words, tokens.NO_FUNCTION)
        self._state = self._text
        return at

    def _text(self, text: bytes, at: int) -> int:
        pending = _some(self._pending)
        runs = tokens.RUN_IN_FUNCTION if pending.words == tokens.FUNCTION else tokens.RUN
        since, at = at, _end(runs[self.has_standard_strings], text, at)
        if at == len(text):
            return self._wait_for_word(text, since)
        match text[at : at + 1]:
            case b";":
                is_inside = pending.parentheses or pending.blocks
                return at + 1 if is_inside else self._end_statement(pending, text, at)
            case b"(":
                pending.parentheses += 1
            case b")":
                pending.parentheses = max(0, pending.parentheses - 1)
            case b"'":
                self._state = self._string if self.has_standard_strings else self._escapes
            case b'"':
                self._state = self._identifier
            case b"$":
                return self._dollar(text, at)
            case b"-" | b"/":
                return self._begin_comment(text, at)
            case b"\\":
                self._count_lines(text, at)
                raise client_command(self.line)
            case _:
                return self._word(pending, text, at)
        return at + 1

    def _word(self, pending: _Pending, text: bytes, at: int) -> int:
        """One that a run leaves to be looked at."""
        if text[at + 1 : at + 2] == b"'":
            self._state = self._escapes
            return at + 2
        end = _end(tokens.WORD_TOKEN, text, at)
        if end == len(text):
            return self._wait(at)
        if not pending.parentheses:
            word = text[at:end].lower()
            if word == b"begin":
                # A function may be called so as well, which psql does not tell apart.
                if tokens.ATOMIC.match(text, end):
                    pending.blocks += 1
                elif len(text) - end < _HELD_WORD_BYTES and tokens.ATOMIC_BEGUN.match(text, end):
                    return self._wait(at)
            elif word == b"case" and pending.blocks:
                pending.blocks += 1
            elif word == b"end" and pending.blocks:
                pending.blocks -= 1
        return end

    def _wait_for_word(self, text: bytes, since: int) -> int:
        """Keep back what more text could make a different token of."""
        tail = text[max(since, len(text) - _HELD_WORD_BYTES) :]
        word_bytes = len(tail) - len(tail.rstrip(tokens.WORD_BYTES))
        return self._wait(len(text) - word_bytes if word_bytes < _HELD_WORD_BYTES else len(text))

    def _end_statement(self, pending: _Pending, text: bytes, at: int) -> int:
        self._keep(pending, text[self._start : at])
        body = pending.parts[0] if len(pending.parts) == 1 else b"".join(pending.parts)
        if b"\0" in body:
            raise TextError("ARCHIVE_WRONG_KIND", f"Line {pending.line}: there is a zero byte; that is no SQL text.")
        has_rows = body[:4].upper() == b"COPY" and tokens.COPY_FROM_STDIN.match(body) is not None
        if strings := tokens.STRINGS_SETTING.match(body):
            self.has_standard_strings = strings[1].lower() in (b"on", b"true", b"yes", b"1")
        self._event = Statement(body, pending.line, self.facts.entry, has_rows)
        self._pending = None
        self._state = self._rest_of_line if has_rows else self._between
        self.facts.has_closing = False
        return at + 1

    def _keep(self, pending: _Pending, part: bytes) -> None:
        if part:
            pending.parts.append(part)
            pending.size_bytes += len(part)
        if pending.size_bytes > self._limit_bytes:
            raise TextError(
                "LIMIT_EXCEEDED",
                f"The statement at line {pending.line} is longer than the limit of {self._limit_bytes} bytes.",
                next_step="Make the dump without --inserts, or in custom format.",
            )

    # In strings and comments.

    def _string(self, text: bytes, at: int) -> int:
        return self._until(b"'", text, at)

    def _identifier(self, text: bytes, at: int) -> int:
        return self._until(b'"', text, at)

    def _until(self, quote: bytes, text: bytes, at: int) -> int:
        end = text.find(quote, at)
        if end < 0:
            return len(text)
        self._state = self._text
        return end + 1

    def _escapes(self, text: bytes, at: int) -> int:
        at = _end(tokens.ESCAPED, text, at)
        if at == len(text):
            return at
        if text[at] != tokens.QUOTE:
            return self._wait(at)
        self._state, self._has_gap, self._has_line_gap = self._after_escapes, False, False
        return at + 1

    def _after_escapes(self, text: bytes, at: int) -> int:
        """A quote right after the closing one, or on a later line, goes on with the same string.

        Comments that end with their line may stand between.
        """
        end = _end(tokens.SPACE, text, at)
        self._has_gap |= end > at
        self._has_line_gap |= tokens.END_OF_LINE.search(text, at, end) is not None
        if end == len(text):
            return end
        if text[end:] == b"-":
            return self._wait(end)
        if text.startswith(b"--", end):
            return self._begin_comment(text, end)
        goes_on = text[end] == tokens.QUOTE and (self._has_line_gap or not self._has_gap)
        self._state = self._escapes if goes_on else self._text
        return end + 1 if goes_on else end

    def _dollar(self, text: bytes, at: int) -> int:
        tag = tokens.DOLLAR_TAG.match(text, at)
        if tag:
            self._tag, self._state = tag[0], self._dollar_string
            return tag.end()
        if len(text) - at < _HELD_WORD_BYTES and tokens.DOLLAR_TAG_BEGUN.match(text, at):
            return self._wait(at)
        return at + 1

    def _dollar_string(self, text: bytes, at: int) -> int:
        end = text.find(self._tag, at)
        if end < 0:
            return self._wait(max(at, len(text) - len(self._tag) + 1))
        self._state = self._text
        return end + len(self._tag)

    def _begin_comment(self, text: bytes, at: int) -> int:
        self._back, self._comments = self._state, 1
        self._state = self._line_comment if text[at] == tokens.DASH else self._block_comment
        return at + 2

    def _line_comment(self, text: bytes, at: int) -> int:
        end = tokens.END_OF_LINE.search(text, at)
        if end is None:
            return len(text)
        self._state = self._back
        return end.start()

    def _block_comment(self, text: bytes, at: int) -> int:
        while mark := tokens.COMMENT_MARK.search(text, at):
            at = mark.end()
            self._comments += 1 if mark[0] == b"/*" else -1
            if not self._comments:
                self._state = self._back
                return at
        return self._wait(len(text) - 1) if at < len(text) and text[-1:] in b"/*" else len(text)

    # In a COPY block.

    def _rest_of_line(self, text: bytes, at: int) -> int:
        end = _end(tokens.SPACE_BUT_NEWLINE, text, at)
        if end == len(text):
            return end
        if text[end] != tokens.NEWLINE:
            self._count_lines(text, at)
            raise TextError("ARCHIVE_REFUSED", f"Line {self.line}: there is more behind COPY FROM stdin.")
        self._state, self._is_row_start = self._rows, True
        return end + 1

    def _rows(self, text: bytes, at: int) -> int:
        if self._is_row_start and text.startswith(b"\\", at):
            if mark := tokens.END_OF_ROWS.match(text, at):
                self._state, self._event = self._between, EndOfRows()
                return mark.end()
            if text[at:] in (b"\\", b"\\.", b"\\.\r"):
                return self._wait(at)
        search = at
        while (mark_at := text.find(b"\n\\.", search) + 1) > 0:
            if tokens.END_OF_ROWS.match(text, mark_at):
                break
            search = mark_at
        end = mark_at or text.rfind(b"\n", at) + 1
        if end:
            self._event, self._is_row_start = Rows(text[at:end], True), True
            return end
        if len(text) - at <= _HELD_ROW_BYTES:
            return self._wait(at)
        self._event, self._is_row_start = Rows(text[at:], False), False
        return len(text)


def _end(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    """Where a pattern that can match nothing, and takes so much at once, ends."""
    while (found := pattern.match(text, at)) and found.end() > at:
        at = found.end()
    return at


def _some(pending: _Pending | None) -> _Pending:
    if pending is None:
        raise RuntimeError("there is no statement")
    return pending
