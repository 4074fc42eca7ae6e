"""An agent that has its archive ready, so that only the way through the controller costs anything.

`python -m benchmarks.fake_agent --config FILE`: enrols as the real one does, answers Describe, and streams the same
random mebibyte as often as `size_bytes` of its recipe's settings says.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import grpc

from agent.enrolment import provide_identity
from agent.settings import read_settings
from common.credentials import IdentityFiles
from common.files import private_directory, write_atomically
from mathison.data.v1 import agent_pb2, transfer_pb2
from tools.deployment import App
from tools.deployment.toml_text import Value

CHUNK_BYTES = 1 << 20
SERVICE = "mathison.data.v1.DataAgent"
Context = grpc.aio.ServicerContext[bytes, bytes]


class RelayedApp(App):
    """An app of which there is nothing but its archive."""

    recipe = "relay"

    def __init__(self, app_id: str, *, size_bytes: int) -> None:
        """
        Args:
            size_bytes: of the archive, a multiple of 1 MiB.
        """
        super().__init__(app_id)
        self.size_bytes = size_bytes

    def start(self, directory: Path) -> None:
        pass

    def close(self) -> None:
        pass

    def recipe_settings(self) -> Mapping[str, Value]:
        return {"size_bytes": self.size_bytes}

    def agent_argv(self, config_path: Path) -> Sequence[str | Path]:
        # The checkout's folders are not on the path of a program that is started elsewhere.
        start = "import sys; sys.path.insert(0, sys.argv.pop(1)); from benchmarks.fake_agent import main; main()"
        return [sys.executable, "-c", start, Path(__file__).resolve().parents[1], "--config", config_path]

    @property
    def pid(self) -> int:
        return 0

    def connection(self) -> Mapping[str, str]:
        return {}


class Archive:
    """Encoded frames, made before anybody asks."""

    def __init__(self, size_bytes: int) -> None:
        chunk = os.urandom(CHUNK_BYTES)
        self.count = size_bytes // CHUNK_BYTES
        digest = hashlib.sha256()
        for _ in range(self.count):
            digest.update(chunk)
        header = transfer_pb2.ArchiveHeader(recipe="relay", format="bin", media_type="application/octet-stream")
        end = transfer_pb2.End(size_bytes=size_bytes, sha256=digest.hexdigest())
        self.header = transfer_pb2.Frame(header=header).SerializeToString()
        self.frame = transfer_pb2.Frame(chunk=chunk).SerializeToString()
        self.end = transfer_pb2.Frame(end=end).SerializeToString()

    async def frames(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        """Answers Export."""
        yield self.header
        for _ in range(self.count):
            yield self.frame
        yield self.end


def _handlers(app_id: str, archive: Archive) -> grpc.GenericRpcHandler:
    description = agent_pb2.DescribeResponse(app_id=app_id, recipe="relay", can_export=True)

    async def describe(request: bytes, context: Context) -> bytes:
        return description.SerializeToString()

    # Without serializers: what is sent is encoded already.
    calls: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Describe": grpc.unary_unary_rpc_method_handler(describe),
        "Export": grpc.unary_stream_rpc_method_handler(archive.frames),
    }
    handlers: grpc.GenericRpcHandler = grpc.method_handlers_generic_handler(SERVICE, calls)
    return handlers


async def _serve(config_path: Path) -> None:
    settings = read_settings(config_path)
    private_directory(settings.state_directory)
    archive = Archive(int(settings.recipe_settings["size_bytes"]))
    await provide_identity(settings, now=dt.datetime.now(dt.UTC))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_handlers(settings.app_id, archive),))
    server.add_secure_port(settings.listen, IdentityFiles(settings.identity_directory).server_credentials())
    await server.start()
    write_atomically(settings.address_file, settings.listen.encode())
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    asyncio.run(_serve(parser.parse_args().config))


if __name__ == "__main__":
    main()
