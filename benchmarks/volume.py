"""An incompressible volume of 2 GB out, against `tar | zstd -1`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.programs import curl, shell
from benchmarks.rows import Row, medians, ratio_at_least, seconds_of
from tools.deployment import Deployment, VolumeApp

MEGABYTE = 1_000_000


def export_rows(
    deployment: Deployment, app: VolumeApp, folder: Path, *, rounds: int, say: Callable[[str], None]
) -> list[Row]:
    """Throughput in MB of content a second."""
    size_megabytes = sum(path.stat().st_size for path in app.directory.rglob("*") if path.is_file()) / MEGABYTE
    route = f"/api/deployments/{app.app_id}/export-data"
    found = medians(
        {
            "ours": lambda: seconds_of(lambda: curl(deployment, route, "--output", folder / "ours.tar.zst")),
            "tar | zstd -1": lambda: seconds_of(
                lambda: shell(f"tar -C {app.directory} -cf - . | zstd -1 -q > {folder}/theirs.tar.zst")
            ),
        },
        rounds=rounds,
        say=say,
    )
    ours, theirs = (size_megabytes / seconds for seconds in found.values())
    return [Row("volume export against tar | zstd -1", ours, "MB/s", ratio_at_least(0.9), theirs)]
