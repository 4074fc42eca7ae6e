"""What the demo does with each app, step by step, and what it measures on the way.

The product's own command `mathison` does the moving, as a person would: what the demo proves, it proves of that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.demo.subjects import Content, Subject
from tools.deployment import Deployment, DeploymentError
from tools.deployment.memory import PeakMemory
from tools.deployment.programs import run_command, script

STEP_SECONDS = 1800.0
"""A step that takes longer has failed."""


@dataclass(frozen=True)
class Moved:
    """One export, import or undo.

    Attributes:
        data_bytes: before compression, as the agent counted.
        peaks_bytes: most memory of the programs and of the children that they started.
    """

    app_id: str
    step: str
    data_bytes: int
    archive_bytes: int
    seconds: float
    peaks_bytes: dict[str, int]


@dataclass(frozen=True)
class Done:
    """A command that succeeded: what it printed, wall time, and the memory of all who took part."""

    report: dict[str, Any]
    seconds: float
    peaks_bytes: dict[str, int]


@dataclass(frozen=True)
class Compared:
    """One comparison of content."""

    app_id: str
    moment: str
    sha256_before: str
    sha256_after: str
    differences: Sequence[str]

    @property
    def is_equal(self) -> bool:
        return not self.differences


@dataclass
class Story:
    """The demo's course and its results."""

    deployment: Deployment
    exports: Path
    """Folder for the archives."""
    say: Callable[[str], None]
    moved: list[Moved] = field(default_factory=list)
    compared: list[Compared] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return bool(self.compared) and all(comparison.is_equal for comparison in self.compared)

    def tell(self, subject: Subject, *, size_megabytes: int) -> None:
        """Everything for one app.

        Raises:
            DeploymentError: a command failed; with what it said.
        """
        app_id = subject.app_id
        self.say(f"{app_id}: making a data set")
        subject.load(size_megabytes)
        original = subject.look()
        self.say(f"{app_id}: exporting")
        archive, data_bytes = self._export(app_id)

        self.say(f"{app_id}: losing everything, then importing the archive")
        subject.wipe()
        if not original.differences(subject.look()):
            raise DeploymentError(f"{app_id} was wiped, but its content is what it was: the demo itself is broken.")
        self._import(app_id, archive, data_bytes, step="import")
        self._compare(subject, "lost, then imported", original)

        self.say(f"{app_id}: working on, then importing the old archive by mistake")
        subject.write_more()
        worked_on = subject.look()
        self._import(app_id, archive, data_bytes, step="import again")
        self._compare(subject, "imported over newer data", original)

        self.say(f"{app_id}: undoing that import")
        self._undo(app_id)
        self._compare(subject, "import undone", worked_on)

    def _export(self, app_id: str) -> tuple[Path, int]:
        done = self._mathison("export", app_id, f"--output={self.exports}/")
        archive = Path(done.report["file"])
        data_bytes = int(self.deployment.get(f"/api/transfers/{done.report['transfer_id']}")["progress"]["read_bytes"])
        self._note(app_id, "export", done, data_bytes, archive)
        return archive, data_bytes

    def _import(self, app_id: str, archive: Path, data_bytes: int, *, step: str) -> None:
        self._note(app_id, step, self._mathison("import", app_id, str(archive), "--yes"), data_bytes, archive)

    def _undo(self, app_id: str) -> None:
        self._note(app_id, "undo", self._mathison("undo", app_id, "--yes"), 0, None)

    def _mathison(self, command: str, *arguments: str) -> Done:
        """Run the product's command with everything watched."""
        sites = self.deployment.sites
        pids = {"controller": self.deployment.controller.pid, **{name: sites[name].agent.pid for name in sites}}
        options = [f"--url={self.deployment.rest}", f"--token-file={self.deployment.token_path}", "--json"]
        began_at = time.monotonic()
        with PeakMemory(pids, forgets=True) as memory:
            printed = run_command(
                [script("mathison"), command, *arguments, *options], home=self.exports, timeout_seconds=STEP_SECONDS
            )
        return Done(json.loads(printed), time.monotonic() - began_at, memory.peaks_bytes)

    def _note(self, app_id: str, step: str, done: Done, data_bytes: int, archive: Path | None) -> None:
        archive_bytes = archive.stat().st_size if archive else 0
        self.moved.append(Moved(app_id, step, data_bytes, archive_bytes, done.seconds, done.peaks_bytes))

    def _compare(self, subject: Subject, moment: str, before: Content) -> None:
        after = subject.look()
        differences = [*before.differences(after), *subject.faults()]
        self.compared.append(Compared(subject.app_id, moment, before.sha256, after.sha256, differences))
