"""The log: one event a line, a fixed sentence with `action` and ids as fields; never a payload, never a secret.

    _log.info("A transfer has ended.", action="end_transfer", transfer_id="t-1", result="succeeded")

On a terminal a line is for people, elsewhere it is JSON. What libraries log by `logging` comes out in the same form.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "[redacted]"
_SECRET_KEY = re.compile(r"token|passw|passphrase|secret|authorization|cookie|private_key|credential", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"(?P<token>mathison-(?:join|api)\.)[A-Za-z0-9_-]+"
    r"|(?P<url>://[^/\s:@]*:)[^@\s]+(?=@)"
    r"|(?P<bearer>\bbearer\s+)[^\s'\",]+"
    r"|(?P<pair>\bpassword\s*=\s*)(?:'[^']*'|[^\s'\",]+)",
    re.IGNORECASE,
)


def set_up_logs(*, program: str, stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send everything that is logged to a stream.

    Args:
        program: goes into each line of JSON, for example "agent".
        stream: standard error when not given.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )

    def name_program(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {"program": program, **event}

    renderer: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if stream.isatty()
        else [name_program, structlog.processors.JSONRenderer(default=str)]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            drop_unset,
            structlog.processors.format_exc_info,
            redact,
            *renderer,
        ],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def drop_unset(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """A field that is None does not apply to this event."""
    return {key: value for key, value in event.items() if value is not None}


def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Hide values of fields that are named like secrets, and what looks like one inside texts."""
    return {key: _without_secrets(key, value) for key, value in event.items()}


def _without_secrets(key: str, value: object) -> object:
    if _SECRET_KEY.search(key):
        return REDACTED
    if isinstance(value, str):
        return _SECRET_TEXT.sub(lambda found: f"{found[found.lastgroup or 0]}{REDACTED}", value)
    if isinstance(value, Mapping):
        return {str(inner): _without_secrets(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets("", item) for item in value]
    return value
