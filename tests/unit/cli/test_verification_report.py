"""What `mathison verify` tells a person: never more than was proven."""

from __future__ import annotations

import pytest

from cli.models import Fingerprint
from cli.output import Output
from cli.reports import report_verification
from cli.verifying import Verification


@pytest.mark.parametrize(
    ("unproven", "last"),
    [
        ("", ["It holds exactly what its app held when it was exported."]),
        ("Of 3 values.", ["It holds what its fingerprint says.", "Not proven: Of 3 values."]),
    ],
)
def test_an_archive_holds_exactly_what_the_app_held_only_when_nothing_is_left_unproven(
    unproven: str, last: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fingerprint = Fingerprint(scheme="x/1", sha256="00", parts={})
    verification = Verification(
        file="a.sql",
        size_bytes=1,
        sha256="00",
        fingerprint=fingerprint,
        engine="",
        differences=(),
        unproven=unproven,
    )

    report_verification(Output(is_json=False, is_quiet=False), verification)

    assert capsys.readouterr().out.splitlines()[-len(last) :] == last
