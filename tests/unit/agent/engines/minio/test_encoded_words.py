"""What a MinIO says of metadata is read back only where it may have said so."""

from __future__ import annotations

import pytest

from agent.engines.minio.portable.encoded_words import decoded, encoded

SAID = {
    "grün": "=?UTF-8?q?gr=C3=BCn?=",
    "grün.txt": "=?UTF-8?b?Z3LDvG4udHh0?=",
    "ö b_c=?x": "=?UTF-8?q?=C3=B6_b=5Fc=3D=3Fx?=",
    "a\tü": "=?UTF-8?q?a=09=C3=BC?=",
    " ü ": "=?UTF-8?q?_=C3=BC_?=",
    "a\nb\0": "=?UTF-8?q?a=0Ab=00?=",
    "gr\udcfcn": "=?UTF-8?q?gr=FCn?=",
    "gr\udcfcn.txt": "=?UTF-8?b?Z3L8bi50eHQ=?=",
    "ü\udcc3b": "=?UTF-8?q?=C3=BC=C3b?=",
    "日本語" * 3: "=?UTF-8?q?=E6=97=A5=E6=9C=AC=E8=AA=9E=E6=97=A5=E6=9C=AC=E8=AA=9E=E6=97=A5?= "
    "=?UTF-8?q?=E6=9C=AC=E8=AA=9E?=",
    "\udcff" * 50 + ".": f"=?UTF-8?b?{'/' * 60}?= =?UTF-8?b?//////8u?=",
    "日本語.txt" * 5: "=?UTF-8?b?5pel5pys6KqeLnR4dOaXpeacrOiqni50eHTml6XmnKzoqp4udHh05pel5pys?= "
    "=?UTF-8?b?6KqeLnR4dOaXpeacrOiqni50eHQ=?=",
}
"""By a real server."""


@pytest.mark.parametrize("text", SAID)
def test_what_a_server_said_stands_for_what_it_stores(text: str) -> None:
    said = SAID[text]

    assert encoded(text, said[len("=?UTF-8?")]) == said
    assert decoded(said) == text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a.b(",
        "=?no-such-charset?Q?abc?=",
        "=?utf-8?q?=C3=BC?=",
        "=?UTF-8?b?a?=",
        "=?UTF-8?b?/w?=",
        "=?UTF-8?B?aGVsbG8=?=",
        "=?UTF-8?b?aGVsbG8=?=",
        "=?UTF-8?q?abc?=",
        "=?UTF-8?q?=c3=bc?=",
        "=?UTF-8?q?=C3=BC=61?=",
        "=?UTF-8?q?=C3=BC?=  =?UTF-8?q?=C3=BC?=",
        "=?UTF-8?q?=C3=BC?= =?UTF-8?q?=C3=BC?=",
        "=?UTF-8?q?=C3=BC?= =?UTF-8?b?w7w=?=",
        "=?UTF-8?q?=?=",
        "x =?UTF-8?q?=C3=BC?=",
        "gr\udcfcn",
        "grün",
    ],
)
def test_anything_else_stays_what_it_is(value: str) -> None:
    assert decoded(value) == value
