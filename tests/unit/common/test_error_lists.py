"""docs/errors.md, the comments of the proto files and the classes in common/errors.py say the same."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from common.errors import ERRORS_BY_REASON, make_error
from controller.api.problems import (
    STATUS_BY_ERROR,
    EncodingNotSupportedError,
    ExpectationNotMetError,
    HttpVersionTooOldError,
)

CHECKOUT = Path(__file__).resolve().parents[3]
PAGE = (CHECKOUT / "docs" / "errors.md").read_text()
PROTOS = CHECKOUT / "protos" / "mathison" / "data" / "v1"
EVERYWHERE = {"INVALID_REQUEST", "NOT_AUTHENTICATED", "NOT_PERMITTED", "INTERNAL", "APP_NOT_FOUND", "AGENT_UNAVAILABLE"}
"""What the page says of every call, not of each."""
READS_ONLY = {"ListApps", "DescribeApp", "ListAppTransfers"}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def reasons(text: str) -> set[str]:
    """Every reason that a text names."""
    text = text.replace("ARCHIVE_…", " ".join(reason for reason in ERRORS_BY_REASON if reason.startswith("ARCHIVE_")))
    return set(re.findall(r"[A-Z]+(?:_[A-Z]+)+|CANCELLED|INTERNAL", text)) & set(ERRORS_BY_REASON)


def comments_of_calls(name: str) -> dict[str, str]:
    """The comment above each rpc of a proto file."""
    found = re.findall(r"((?:  //.*\n)+)  rpc (\w+)\(", (PROTOS / name).read_text())
    return {call: re.sub(r"\s*//\s*", " ", comment) for comment, call in found}


def test_each_reason_has_one_row_with_the_codes_that_it_has() -> None:
    listed = {reason.strip("`"): (code, status) for reason, code, status, *_ in rows("The reasons")}

    assert listed == {
        reason: (error.code.name, str(STATUS_BY_ERROR[error])) for reason, error in ERRORS_BY_REASON.items()
    }


@pytest.mark.parametrize(
    "reason",
    sorted(reason for reason in ERRORS_BY_REASON if re.match("ARCHIVE_|APP_UNAV|APP_BUSY|NO_SPACE|TOOL|LIMIT", reason)),
)
def test_an_error_of_an_import_says_what_to_do_next_even_where_nothing_better_is_known(reason: str) -> None:
    assert make_error(reason, "It failed.").next_step.endswith(".")
    assert make_error(reason, "It failed.", next_step="Wait.").next_step == "Wait."


@pytest.mark.parametrize("error", [EncodingNotSupportedError, ExpectationNotMetError, HttpVersionTooOldError])
def test_a_status_without_a_reason_of_its_own_is_told(error: type[EncodingNotSupportedError]) -> None:
    assert str(STATUS_BY_ERROR[error]) in PAGE


@pytest.mark.parametrize("call", comments_of_calls("agent.proto"))
def test_the_agents_calls_list_the_same_errors_in_page_and_proto(call: str) -> None:
    (listed,) = (cells[3] for cells in rows("Where they occur") if cells[0] == call)
    specified = comments_of_calls("agent.proto")[call].partition("Errors:")[2]
    # What it may be told of another state is no error of the call.
    assert reasons(listed) - EVERYWHERE == reasons(re.sub(r"\((UN)?[A-Z_]+", "(", specified)) - EVERYWHERE


@pytest.mark.parametrize("file", ["controller.proto", "enrolment.proto"])
def test_every_call_of_the_controller_has_a_row_and_says_whether_it_may_be_repeated(file: str) -> None:
    listed = {call for cells in rows("Where they occur") for call in cells[1].split(", ")}

    for call, comment in comments_of_calls(file).items():
        assert call in listed
        assert re.search("repeated|repeating", comment), call


@pytest.mark.parametrize("call", sorted(set(comments_of_calls("controller.proto")) - READS_ONLY))
def test_a_call_of_the_controller_that_is_passed_on_names_the_agents_call_whose_errors_it_has(call: str) -> None:
    named = set(re.findall(r"DataAgent\.(\w+)", comments_of_calls("controller.proto")[call].partition("Errors")[2]))

    assert named == {cells[0] for cells in rows("Where they occur") if call in cells[1].split(", ")}


@pytest.mark.parametrize("file", sorted(path.name for path in PROTOS.glob("*.proto")))
def test_every_field_is_explained(file: str) -> None:
    lines = (PROTOS / file).read_text().splitlines()

    bare = [
        line.strip()
        for before, line in itertools.pairwise(lines)
        if re.fullmatch(r"\s+[\w.<>, ]+ \w+ = \d+;", line) and not before.strip().startswith("//")
    ]
    assert bare == []
