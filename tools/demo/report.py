"""The demo's results as tables for a person."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tools.demo.story import Compared, Moved, Story
from tools.deployment import Deployment

MEGABYTE = 1_000_000
MIB = 1 << 20
DIGEST_DIGITS = 16


def print_results(console: Console, story: Story) -> None:
    """All figures and comparisons."""
    console.print(_transfers(story.moved), _comparisons(story.compared), "")


def print_addresses(console: Console, deployment: Deployment, *, demo_file: Path) -> None:
    """How to try it, while it runs."""
    token_file = deployment.token_path
    client = deployment.client
    database, *_ = deployment.sites
    commands = (
        f".venv/bin/mathison --url {deployment.rest} --token-file {token_file} apps",
        f"curl -fOJ -X POST -H @{deployment.header_path} {deployment.rest}/api/deployments/{database}/export-data",
        f"$(.venv/bin/python -m tools.servers path grpcurl) -cacert {client.authorities} -cert {client.certificate} "
        f"-key {client.key} "
        f'-authority controller.mathison.internal -H "$(cat {deployment.header_path})" '
        f"{deployment.grpc_address} mathison.data.v1.DataController/ListApps",
    )
    console.print(
        Group(
            Text("Everything runs until Ctrl-C.", style="bold"),
            Text(f"  address  {deployment.rest}"),
            Text(f"  token    {deployment.token}"),
            Text(f"  details  {demo_file}"),
            Text("Try:"),
        )
    )
    for command in commands:
        # As one line each, so that they can be copied.
        console.print(Text(f"  {command}"), soft_wrap=True)


def _transfers(moved: list[Moved]) -> Table:
    table = Table(title="What was moved", title_justify="left", caption=_MEMORY_NOTE, caption_justify="left")
    table.add_column("app")
    table.add_column("step")
    for name in (
        "data MB",
        "archive MB",
        "ratio",
        "seconds",
        "MB/s",
        "agent MiB",
        "controller MiB",
        "largest child MiB",
    ):
        table.add_column(name, justify="right")
    for row in moved:
        table.add_row(row.app_id, row.step, *_sizes(row), *_memory(row))
    return table


_MEMORY_NOTE = (
    "MB/s: data before compression, by wall time of the whole command. MiB: most resident memory during the step."
)


def _sizes(row: Moved) -> tuple[str, ...]:
    seconds = f"{row.seconds:.2f}"
    if not row.data_bytes or not row.archive_bytes:
        return ("", "", "", seconds, "")
    return (
        f"{row.data_bytes / MEGABYTE:.1f}",
        f"{row.archive_bytes / MEGABYTE:.1f}",
        f"{row.data_bytes / row.archive_bytes:.2f}",
        seconds,
        f"{row.data_bytes / MEGABYTE / row.seconds:.1f}",
    )


def _memory(row: Moved) -> tuple[str, ...]:
    children = {
        name.partition(": ")[2]: peak for name, peak in row.peaks_bytes.items() if name.startswith(f"{row.app_id}: ")
    }
    largest = max(children, key=lambda name: children[name], default="")
    return (
        f"{row.peaks_bytes.get(row.app_id, 0) / MIB:.1f}",
        f"{row.peaks_bytes.get('controller', 0) / MIB:.1f}",
        f"{largest} {children[largest] / MIB:.1f}" if largest else "none",
    )


def _comparisons(compared: list[Compared]) -> Table:
    table = Table(title="Content before and after", title_justify="left")
    for name in ("app", "moment", "fingerprint before", "fingerprint after", "verdict"):
        table.add_column(name)
    for row in compared:
        verdict = (
            Text("equal", "green") if row.is_equal else Text("DIFFERENT\n" + "\n".join(row.differences[:5]), "red")
        )
        before, after = row.sha256_before[:DIGEST_DIGITS], row.sha256_after[:DIGEST_DIGITS]
        table.add_row(row.app_id, row.moment, before, after, verdict)
    return table
