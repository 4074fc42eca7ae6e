"""Each error keeps its class, text and next step across the wire."""

from __future__ import annotations

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from common.errors import ERRORS_BY_REASON, AgentUnavailableError, InternalError
from common.status import error_from_call, status_code, trailing_metadata


@pytest.mark.parametrize("reason", sorted(ERRORS_BY_REASON))
def test_an_error_comes_back_as_what_it_was(reason: str) -> None:
    error = ERRORS_BY_REASON[reason]("Ein Fehler: ü", next_step="Do this.")
    failed = AioRpcError(status_code(error), Metadata(), Metadata(*trailing_metadata(error)), error.text)

    found = error_from_call(failed, peer="the agent of a.b")

    assert (type(found), found.text, found.next_step) == (type(error), "Ein Fehler: ü", "Do this.")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, AgentUnavailableError),
        (grpc.StatusCode.CANCELLED, AgentUnavailableError),
        (grpc.StatusCode.INTERNAL, AgentUnavailableError),
        (grpc.StatusCode.UNKNOWN, AgentUnavailableError),
        (grpc.StatusCode.UNIMPLEMENTED, InternalError),
    ],
)
def test_a_status_without_details_of_ours_says_who_failed_and_nothing_it_does_not_know(
    code: grpc.StatusCode, expected: type[Exception]
) -> None:
    failed = AioRpcError(code, Metadata(), Metadata(), "password=hunter2")

    found = error_from_call(failed, peer="the agent of a.b")

    assert type(found) is expected
    assert "the agent of a.b" in found.text
    assert "hunter2" not in found.text
