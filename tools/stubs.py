"""Makes the Python stubs that lie beside the proto files: `python -m tools.stubs`, or `make stubs`.

The stubs are committed, so that neither an installation nor an image needs protoc. They are made by the pinned
grpcio-tools and mypy-protobuf of requirements.lock, and `--check` shows when that was forgotten.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.metadata
import importlib.resources
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PROTOS = CHECKOUT / "protos"
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


class StubsError(Exception):
    """protoc refused the proto files; its own words have been printed."""


def proto_files(root: Path) -> list[Path]:
    """Every proto file below a root, relative to it, in a fixed order."""
    return sorted(path.relative_to(root) for path in root.rglob("*.proto"))


def stub_files(root: Path) -> set[Path]:
    """Every stub below a root, relative to it."""
    return {path.relative_to(root) for suffix in SUFFIXES for path in root.rglob(f"*{suffix}")}


def make_stubs(protos: Path, destination: Path) -> None:
    """Make the stubs of every proto file below `protos`, in the same folders below `destination`.

    Raises:
        StubsError: nothing usable was made.
    """
    files = proto_files(protos)
    if not files:
        return
    plugins = Path(sys.executable).parent
    bundled = importlib.resources.files("grpc_tools") / "_proto"
    # google/rpc/*.proto lie beside their Python modules, in site-packages.
    rpc_root = importlib.metadata.distribution("googleapis-common-protos").locate_file("")
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={protos}",
            f"--proto_path={bundled}",
            f"--proto_path={rpc_root}",
            f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
            f"--python_out={destination}",
            f"--grpc_python_out={destination}",
            f"--mypy_out=quiet:{destination}",
            # Both programs speak grpc.aio alone; without this every stub and servicer is typed for both worlds at once.
            f"--mypy_grpc_out=quiet,only_async:{destination}",
            *(str(file) for file in files),
        ],
        check=False,
    )
    if ended.returncode != 0:
        raise StubsError(f"protoc ended with status {ended.returncode}")
    _drop_empty_service_stubs(protos, destination, files)


def _drop_empty_service_stubs(protos: Path, destination: Path, files: Sequence[Path]) -> None:
    """grpc_tools writes a _pb2_grpc.py for files without a service too; it holds nothing but a version check."""
    for file in files:
        if not any(line.startswith("service ") for line in (protos / file).read_text().splitlines()):
            for suffix in ("_pb2_grpc.py", "_pb2_grpc.pyi"):
                (destination / file).with_name(file.stem + suffix).unlink(missing_ok=True)


def differing_stubs(protos: Path, remade: Path) -> list[Path]:
    """Stubs that are missing, superfluous or different beside the proto files, compared with freshly made ones."""
    present, wanted = stub_files(protos), stub_files(remade)
    changed = {path for path in present & wanted if not filecmp.cmp(protos / path, remade / path, shallow=False)}
    return sorted(changed | (present ^ wanted))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: stubs made, or found as they should be; 1: they differ (--check) or could not be made."""
    parser = argparse.ArgumentParser(prog="python -m tools.stubs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; name the stubs that are not up to date")
    parser.add_argument("--protos", type=Path, default=PROTOS, help="root of the proto files (default: %(default)s)")
    options = parser.parse_args(arguments)
    protos: Path = options.protos.resolve()
    try:
        with tempfile.TemporaryDirectory() as folder:
            remade = Path(folder)
            make_stubs(protos, remade)
            differing = differing_stubs(protos, remade)
            if options.check:
                for path in differing:
                    print(f"not up to date: {protos / path}; run: make stubs", file=sys.stderr)
                return 1 if differing else 0
            for path in differing:
                if (remade / path).exists():
                    (protos / path).write_bytes((remade / path).read_bytes())
                else:
                    (protos / path).unlink()
                print(f"stubs: {path}")
    except StubsError as error:
        print(f"stubs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
