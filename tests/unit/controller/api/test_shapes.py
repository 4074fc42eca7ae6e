"""Messages as JSON."""

from __future__ import annotations

import datetime as dt
import json

from controller.api.shapes import message_to_json
from mathison.data.v1 import transfer_pb2 as wire


def test_numbers_are_numbers_enums_are_words_moments_are_rfc_3339() -> None:
    state = wire.TransferState(
        transfer_id="t-1",
        kind=wire.TRANSFER_KIND_IMPORT,
        progress=wire.Progress(phase=wire.PHASE_TRANSFERRING, read_bytes=1 << 40),
        result=wire.TRANSFER_RESULT_SUCCEEDED,
        end=wire.End(size_bytes=5, counts={"tables": 2}, warnings=["one"]),
    )
    state.started_at.FromDatetime(dt.datetime(2026, 11, 23, 17, 42, 10, 500_000, tzinfo=dt.UTC))

    content = message_to_json(state)

    assert content["kind"] == "import"
    assert content["progress"]["phase"] == "transferring"
    assert content["progress"]["read_bytes"] == 1 << 40
    assert content["result"] == "succeeded"
    assert content["started_at"] == "2026-11-23T17:42:10.500000Z"
    assert content["end"] == {
        "size_bytes": 5,
        "sha256": "",
        "counts": {"tables": 2},
        "warnings": ["one"],
        "fingerprint": None,
    }
    json.dumps(content)


def test_a_map_of_messages_is_an_object_of_objects() -> None:
    preview = wire.Preview(counts_now={"tables": 1}, items={"tables": wire.ItemChanges(added=2, not_compared=3)})

    content = message_to_json(preview)

    assert content["counts_now"] == {"tables": 1}
    assert content["items"] == {"tables": {"added": 2, "removed": 0, "changed": 0, "same": 0, "not_compared": 3}}
    json.dumps(content)


def test_what_is_not_set_is_null_and_every_field_is_there() -> None:
    content = message_to_json(wire.TransferState())

    assert set(content) == set(wire.TransferState.DESCRIPTOR.fields_by_name)
    assert [name for name, value in content.items() if value is None] == [
        "kind",
        "progress",
        "result",
        "end",
        "error",
        "started_at",
        "ended_at",
        "preview",
        "kept_until",
        "header",
    ]


def test_a_word_of_a_newer_agent_is_null() -> None:
    progress = wire.Progress.FromString(b"\x08\x63")  # field 1, phase 99

    assert message_to_json(progress)["phase"] is None
