"""MinIO and grpcurl, built from their Go modules by one build.

It is the largest cost of a machine with nothing cached, and most of grpcurl is what MinIO is made of as well: it adds
40 packages to MinIO's 1,300. So both come of one module, which has MinIO's versions of what they share. Seven minutes
of a processor on a busy machine, where two builds took ten.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from tools.servers.cache import kept
from tools.servers.sources import run
from tools.servers.toolchains import go_toolchain

MINIO = "v0.0.0-20260212201848-7aac2a2c5b7c"
"""The last version of MinIO's Go module; older releases are on no registry."""
GRPCURL = "v1.9.3"
"""The newest whose modules all are of MinIO's versions or older, so that MinIO is built of what it asks for."""
_PACKAGES = ("github.com/minio/minio", "github.com/fullstorydev/grpcurl/cmd/grpcurl")
_MODULE = f"""\
module mathison.invalid/programs

go 1.24.0

require (
	github.com/fullstorydev/grpcurl {GRPCURL}
	github.com/minio/minio {MINIO}

	// Named since grpcurl asks for an older one, which holds packages that moved to a module of their own.
	github.com/envoyproxy/go-control-plane v0.13.4
)
"""


def minio() -> Path:
    """The server program, built now when it is not there.

    It may be run, and not read: MinIO first takes the MD5 sum of its own program where it can, which is over a third of
    what a start costs. Root could read it all the same, but root's servers run as another user.
    """
    program = _built() / "minio"
    with contextlib.suppress(PermissionError):
        program.chmod(0o111)
    return program


def grpcurl() -> Path:
    """The program grpcurl, built now when it is not there."""
    return _built() / "grpcurl"


def _built() -> Path:
    return kept("go-programs", f"minio-{MINIO}-grpcurl-{GRPCURL}", _build) / "bin"


def _build(making: Path) -> None:
    """Build into `bin`, with a module and build cache of its own that is dropped afterwards.

    Modules are pinned by version; Go's checksum database vouches for the content.
    """
    scratch = making / ".build"
    scratch.mkdir()
    (scratch / "go.mod").write_text(_MODULE)
    passed_on = ("GO", "SSL_", "HTTP", "http", "NO_")
    environment = {
        "PATH": os.environ.get("PATH", ""),
        **{name: value for name, value in os.environ.items() if name.startswith(passed_on)},
        "HOME": str(scratch),
        "GOPATH": str(scratch / "path"),
        "GOMODCACHE": str(scratch / "modules"),
        "GOCACHE": str(scratch / "cache"),
        # The compiler looks for what it can free less often.
        "GOGC": "400",
        "GOFLAGS": "-modcacherw -trimpath -mod=mod",
        "CGO_ENABLED": "0",
    }
    # What a debugger reads is a fifth of the compiler's work, and nothing for the speed of what it makes.
    spared = ["-gcflags=all=-dwarf=false", "-ldflags=-s -w"]
    command: list[str | Path] = [go_toolchain().go, "build", *spared, "-o", f"{making / 'bin'}/", *_PACKAGES]
    run(command, what=f"minio {MINIO} with grpcurl {GRPCURL}", cwd=scratch, environment=environment)
    shutil.rmtree(scratch)
