"""Frames taken apart by hand mean what protobuf says they mean."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidRequestError
from controller.raw_frames import (
    RawFrame,
    frame_in_request,
    stage_request_of_chunk,
    stage_request_of_frame,
)
from mathison.data.v1 import agent_pb2, controller_pb2
from mathison.data.v1 import transfer_pb2 as wire

OTHERS = [
    wire.Frame(header=wire.ArchiveHeader(recipe="volume", counts={"files": 3})),
    wire.Frame(header=wire.ArchiveHeader()),
    wire.Frame(progress=wire.Progress(read_bytes=1)),
    wire.Frame(end=wire.End(size_bytes=5, sha256="0" * 64)),
]


def test_an_upload_request_and_a_stage_request_with_a_frame_are_the_same_bytes() -> None:
    ours = controller_pb2.ImportAppRequest.DESCRIPTOR.fields_by_name["frame"]
    agents = agent_pb2.StageRequest.DESCRIPTOR.fields_by_name["frame"]

    assert ours.number == agents.number == wire.Frame.DESCRIPTOR.fields_by_name["chunk"].number == 2
    for frame in [*OTHERS, wire.Frame(chunk=b"x" * 1000)]:
        upload = controller_pb2.ImportAppRequest(frame=frame).SerializeToString()
        assert upload == agent_pb2.StageRequest(frame=frame).SerializeToString() == stage_request_of_frame(frame)


@given(st.binary(max_size=70_000))
def test_a_chunk_is_found_without_a_copy(content: bytes) -> None:
    encoded = wire.Frame(chunk=content).SerializeToString()

    frame = RawFrame.parse(encoded)

    assert frame.kind == "chunk"
    assert bytes(frame.chunk) == content
    assert frame.encoded is encoded
    assert isinstance(frame.chunk, memoryview)


@given(st.lists(st.binary(max_size=20_000), max_size=6))
def test_a_stage_request_made_by_hand_is_protobufs(pieces: list[bytes]) -> None:
    expected = agent_pb2.StageRequest(frame=wire.Frame(chunk=b"".join(pieces))).SerializeToString()

    assert stage_request_of_chunk(pieces) == expected


@pytest.mark.parametrize("message", OTHERS, ids=lambda message: message.WhichOneof("content"))
def test_other_frames_are_parsed(message: wire.Frame) -> None:
    frame = frame_in_request(controller_pb2.ImportAppRequest(frame=message).SerializeToString())

    assert (frame.kind, frame.message) == (message.WhichOneof("content"), message)


@given(st.binary(max_size=200))
def test_any_bytes_are_what_protobuf_takes_them_for_or_refused(encoded: bytes) -> None:
    try:
        expected = wire.Frame.FromString(encoded)
    except DecodeError:
        expected = wire.Frame()

    try:
        frame = RawFrame.parse(encoded)
    except InvalidRequestError:
        assert expected.WhichOneof("content") is None
    else:
        assert frame.kind == expected.WhichOneof("content")
        assert bytes(frame.chunk) == expected.chunk


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"", id="empty"),
        pytest.param(
            controller_pb2.ImportAppRequest(start=controller_pb2.ImportStart()).SerializeToString(), id="start"
        ),
        pytest.param(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", id="endless length"),
        pytest.param(b"\x12\x05ab", id="too short"),
        pytest.param(b"\x12\x00", id="empty frame"),
        pytest.param(b"\x12\x02\xff\xff", id="nonsense"),
    ],
)
def test_what_is_no_frame_is_refused(encoded: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        frame_in_request(encoded)
