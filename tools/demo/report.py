"""The demo's results as tables for a person."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tools.demo.story import Compared, Moved, Story
from tools.deployment import Deployment

MEGABYTE = 1_000_000
MIB = 1 << 20
DIGEST_DIGITS = 12


def print_results(console: Console, story: Story) -> None:
    """All figures and comparisons."""
    console.print(_transfers(story.moved), _memory(story.moved), _comparisons(story.compared), "")


def print_addresses(console: Console, deployment: Deployment, *, demo_file: Path) -> None:
    """How to try it, while it runs."""
    token_file = deployment.token_path
    client = deployment.client
    database, *_ = deployment.sites
    commands = (
        f".venv/bin/mathison --url {deployment.rest} --token-file {token_file} apps",
        f"curl -fOJ -X POST -H @{deployment.header_path} {deployment.rest}/api/deployments/{database}/export-data",
        # grpcurl reads the token from its environment: argv is there for others to list.
        f"MATHISON_TOKEN=$(cat {token_file}) $(.venv/bin/python -m tools.servers path grpcurl) "
        f"-cacert {client.authorities} -cert {client.certificate} -key {client.key} "
        "-authority controller.mathison.internal -expand-headers -H 'authorization: Bearer ${MATHISON_TOKEN}' "
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
    table = _table("What was moved", "app", "step")
    table.caption = "MB/s: data before compression, by wall time of the whole command"
    table.caption_justify = "left"
    for name in ("data MB", "archive MB", "ratio", "seconds", "MB/s"):
        table.add_column(name, justify="right")
    for row in moved:
        table.add_row(row.app_id, row.step, *_figures(row))
    return table


def _figures(row: Moved) -> tuple[str, ...]:
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


def _memory(moved: list[Moved]) -> Table:
    """The agents' children come and go, so their peaks are samples; the others' are what the kernel counted."""
    peaks: dict[str, tuple[int, str]] = {}
    for row in moved:
        for name, peak_bytes in row.peaks_bytes.items():
            if not name.startswith("controller: "):
                peaks[name] = max(peaks.get(name, (0, "")), (peak_bytes, f"{row.step} of {row.app_id}"))
    table = _table("Most resident memory", "process", "in")
    table.add_column("MiB", justify="right")
    for name in sorted(peaks):
        peak_bytes, moment = peaks[name]
        shown = name if name == "controller" else f"agent of {name}".replace(": ", ": its ")
        table.add_row(shown, moment, f"{peak_bytes / MIB:.1f}")
    return table


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)


def _comparisons(compared: list[Compared]) -> Table:
    table = _table("Content, by fingerprint", "app", "moment", "before", "after", "verdict")
    for row in compared:
        verdict = (
            Text("equal", "green") if row.is_equal else Text("DIFFERENT\n" + "\n".join(row.differences[:5]), "red")
        )
        before, after = row.sha256_before[:DIGEST_DIGITS], row.sha256_after[:DIGEST_DIGITS]
        table.add_row(row.app_id, row.moment, before, after, verdict)
    return table
