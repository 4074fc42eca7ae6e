from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from common.logs import REDACTED, set_up_logs

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What was logged, one dict a line."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    set_up_logs(program="agent", stream=stream)

    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]

    root.handlers[:], root.level = before
    structlog.reset_defaults()


def test_an_event_is_one_line_of_json_with_its_fields(lines: Lines) -> None:
    structlog.get_logger().info("A transfer has ended.", action="end_transfer", transfer_id="t-1", reason=None)

    (line,) = lines()
    assert line.pop("timestamp")
    assert line == {
        "event": "A transfer has ended.",
        "action": "end_transfer",
        "transfer_id": "t-1",
        "level": "info",
        "program": "agent",
    }


def test_what_libraries_log_comes_out_in_the_same_form(lines: Lines) -> None:
    logging.getLogger("grpc._cython").warning("something %s", "odd")

    (line,) = lines()
    assert (line["event"], line["level"]) == ("something odd", "warning")


def test_a_traceback_stays_on_the_line_of_its_event(lines: Lines) -> None:
    try:
        raise RuntimeError("the cause")
    except RuntimeError:
        structlog.get_logger().exception("It failed.", action="try")

    (line,) = lines()
    assert "RuntimeError: the cause" in str(line["exception"])


@pytest.mark.parametrize("key", ["token", "join_token", "db_password", "Authorization", "secret", "passphrase"])
def test_fields_named_like_secrets_are_hidden(lines: Lines, key: str) -> None:
    structlog.get_logger().info("Something.", **{key: "hunter2", "nested": {key: "hunter2"}})

    (line,) = lines()
    assert line[key] == REDACTED
    assert line["nested"] == {key: REDACTED}


@pytest.mark.parametrize(
    "text",
    [
        "no such path: /mathison-api.hunter2",
        "mathison-join.hunter2.00ff",
        "cannot reach postgresql://app:hunter2@localhost/app",
        "header Authorization: Bearer hunter2",
        "connecting with host=x password=hunter2 dbname=y",
        "connecting with password='hunter2' dbname=y",
    ],
)
def test_secrets_inside_texts_are_hidden_and_the_rest_is_kept(lines: Lines, text: str) -> None:
    try:
        raise RuntimeError(text)
    except RuntimeError:
        structlog.get_logger().exception(text, error=text, several=[text])

    (line,) = lines()
    assert "hunter2" not in json.dumps(line)
    assert str(line["event"]).startswith(text.split("hunter2")[0].strip("'"))
