"""tools/stubs.py against a throw-away proto file, with the real protoc."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.stubs import main

GREETER = """
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
import "google/rpc/status.proto";
import "shop/v1/types.proto";
service Greeter { rpc Greet(GreetRequest) returns (stream Greeting); }
message GreetRequest { google.protobuf.Timestamp asked_at = 1; google.rpc.Status last = 2; }
"""
TYPES = """
syntax = "proto3";
package shop.v1;
message Greeting { string text = 1; }
"""


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    folder = tmp_path / "shop" / "v1"
    folder.mkdir(parents=True)
    (folder / "greeter.proto").write_text(GREETER)
    (folder / "types.proto").write_text(TYPES)
    return tmp_path


def test_stubs_lie_beside_their_proto_files_and_pass_the_check(protos: Path) -> None:
    assert main(["--protos", str(protos)]) == 0

    made = sorted(path.name for path in (protos / "shop" / "v1").glob("*_pb2*"))
    assert made == [
        "greeter_pb2.py",
        "greeter_pb2.pyi",
        "greeter_pb2_grpc.py",
        "greeter_pb2_grpc.pyi",
        "types_pb2.py",
        "types_pb2.pyi",
    ]
    assert "Greet: _aio.UnaryStreamMultiCallable" in (protos / "shop/v1/greeter_pb2_grpc.pyi").read_text()
    assert main(["--protos", str(protos), "--check"]) == 0


def test_the_check_names_what_is_out_of_date_and_changes_nothing(
    protos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["--protos", str(protos)])
    (protos / "shop/v1/types.proto").write_text(TYPES.replace("text", "words"))
    (protos / "shop/v1/greeter_pb2.pyi").unlink()
    (protos / "shop/v1/gone_pb2.py").write_text("")
    before = (protos / "shop/v1/types_pb2.py").read_bytes()
    capfd.readouterr()

    status = main(["--protos", str(protos), "--check"])

    named = [line.split(";")[0].rpartition("/")[2] for line in capfd.readouterr().err.splitlines()]
    assert status == 1
    assert named == ["gone_pb2.py", "greeter_pb2.pyi", "types_pb2.py", "types_pb2.pyi"]
    assert (protos / "shop/v1/types_pb2.py").read_bytes() == before


def test_a_proto_file_that_protoc_refuses_fails_and_leaves_the_stubs_alone(protos: Path) -> None:
    main(["--protos", str(protos)])
    before = (protos / "shop/v1/types_pb2.py").read_bytes()
    (protos / "shop/v1/types.proto").write_text("message {")

    assert main(["--protos", str(protos)]) == 1

    assert (protos / "shop/v1/types_pb2.py").read_bytes() == before
