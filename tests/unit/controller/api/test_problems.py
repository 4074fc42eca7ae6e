"""The table of reasons and statuses: complete, and the same in the documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from common.errors import ERRORS_BY_REASON, AppNotFoundError, InternalError, NotAuthenticatedError, ServiceError
from controller.api.problems import STATUS_BY_ERROR, problem

ROW = re.compile(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \| (\d{3}) \|", re.MULTILINE)


def test_every_reason_has_a_status_and_the_documentation_says_the_same() -> None:
    rows = ROW.findall(Path("docs/errors.md").read_text())
    documented = {reason: (code, int(status)) for reason, code, status in rows}

    ours = {reason: (kind.code.name, STATUS_BY_ERROR[kind]) for reason, kind in ERRORS_BY_REASON.items()}

    assert ours == documented


@pytest.mark.parametrize("kind", STATUS_BY_ERROR, ids=lambda kind: kind.__name__)
def test_a_problem_holds_what_rfc_9457_asks_for_and_our_reason(kind: type[ServiceError]) -> None:
    answer = problem(kind("It broke.", next_step="Mend it."), transfer_id="t-1")

    assert answer.content_type == "application/problem+json"
    assert isinstance(answer.body, bytes)
    content = json.loads(answer.body)
    assert content == {
        "type": "https://data.mathison.io/errors/" + kind.reason.lower().replace("_", "-"),
        "title": content["title"],
        "status": answer.status,
        "detail": "It broke.",
        "reason": kind.reason,
        "next_step": "Mend it.",
        "transfer_id": "t-1",
    }
    assert answer.headers["Mathison-Transfer"] == "t-1"
    assert ("Retry-After" in answer.headers) == (answer.status == 503)


def test_a_problem_without_a_transfer_names_none() -> None:
    answer = problem(AppNotFoundError("There is no app 'x.y'."))

    assert isinstance(answer.body, bytes)
    assert "transfer_id" not in json.loads(answer.body)


def test_an_unknown_caller_is_told_how_to_authenticate() -> None:
    assert problem(NotAuthenticatedError("Who?")).headers["WWW-Authenticate"] == "Bearer"
    assert "WWW-Authenticate" not in problem(InternalError("Oh.")).headers
