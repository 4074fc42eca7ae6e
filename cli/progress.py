"""How far a transfer is, on standard error: a bar on a terminal, now and then a line elsewhere, or nothing."""

from __future__ import annotations

import abc
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from cli.models import TransferState
from cli.output import duration_text, printable, size_text

LINE_SECONDS = 5.0
"""Between two lines where there is no terminal: a log of an hour stays readable."""
_PHASES = {
    "preparing": "preparing",
    "verifying": "verifying",
    "staged": "verified",
    "restoring": "swapping in",
    "undoing": "putting back",
    "done": "done",
}


class Gauge(abc.ABC):
    """Shows one command's progress; a context manager. All methods are cheap and may be called for every chunk."""

    def __init__(self) -> None:
        self.phase = ""
        self.note = ""
        self.moved_bytes = 0
        self.done_units = 0
        self.total_units = 0
        self._rates = _Rate()

    def __enter__(self) -> Gauge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def enter(self, phase: str, note: str = "") -> None:
        """A new phase, which begins at zero bytes; the same one again changes nothing but the note."""
        if phase != self.phase:
            self.moved_bytes = self.done_units = self.total_units = 0
            self._rates = _Rate()
        self.phase, self.note = phase, note
        self.show()

    def move(self, moved_bytes: int) -> None:
        """So many bytes in all went over the wire, or through a check."""
        self.moved_bytes = moved_bytes
        self._rates.add(moved_bytes)
        self.show()

    def measure(self, done_units: int, total_units: int) -> None:
        """Which part of the whole is done; a total of 0, or one that was passed, means that nobody knows."""
        self.done_units, self.total_units = done_units, total_units
        self.show()

    def follow(self, state: TransferState, moving: str) -> None:
        """Take over phase and note of a transfer; `moving` is the word for its transferring phase."""
        if state.progress and state.phase:
            self.enter(_PHASES.get(state.phase, moving), state.progress.note)

    @property
    def share(self) -> float | None:
        """Done part of the whole, 0 to 1."""
        return self.done_units / self.total_units if 0 < self.total_units >= self.done_units else None

    @property
    def rate_bytes_per_second(self) -> float:
        return self._rates.value

    @property
    def left_seconds(self) -> float | None:
        """Estimate of the time to go from the mean speed so far."""
        share, elapsed = self.share, self._rates.elapsed_seconds
        return elapsed / share - elapsed if share and share > 0.01 and elapsed > 1 else None

    @abc.abstractmethod
    def show(self) -> None:
        """Bring what is seen up to date."""

    def close(self) -> None:  # noqa: B027  # most have nothing to put back
        """Leave the terminal as it was."""


class NoGauge(Gauge):
    """For --quiet and for output that nobody watches."""

    def show(self) -> None:
        pass


class LineGauge(Gauge):
    """A line for each phase, and one now and then while it lasts."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._shown_at = time.monotonic()
        self._shown = ("", "")

    def show(self) -> None:
        now = time.monotonic()
        if (self.phase, self.note) == self._shown and now - self._shown_at < LINE_SECONDS:
            return
        self._shown, self._shown_at = (self.phase, self.note), now
        parts = [self.phase]
        if self.moved_bytes:
            parts += [size_text(self.moved_bytes), f"{size_text(int(self.rate_bytes_per_second)) or '0 bytes'}/s"]
        if self.share is not None:
            parts.append(f"{self.share:.0%}")
        parts += [self.note] if self.note else []
        self._console.print(Text(printable(", ".join(parts))))


class BarGauge(Gauge):
    """A bar that is gone once the command ends, so the result stands alone."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _Numbers(self),
            console=console,
            transient=True,
            refresh_per_second=8,
        )
        self._task = self._bar.add_task("", total=None)
        self._bar.start()

    def show(self) -> None:
        share = self.share
        self._bar.update(
            self._task,
            description=printable(self.phase),
            total=None if share is None else 1.0,
            completed=share or 0.0,
        )

    def close(self) -> None:
        self._bar.stop()


class _Numbers(ProgressColumn):
    """Share, bytes, rate, time left and the note, as far as they are known."""

    def __init__(self, gauge: Gauge) -> None:
        super().__init__()
        self._gauge = gauge

    def render(self, task: Task) -> Text:
        gauge = self._gauge
        parts = []
        if gauge.share is not None:
            parts.append(f"{gauge.share:>4.0%}")
        if gauge.moved_bytes:
            parts.append(size_text(gauge.moved_bytes))
            parts.append(f"{size_text(int(gauge.rate_bytes_per_second)) or '0 bytes'}/s")
        if gauge.left_seconds is not None:
            parts.append(f"about {duration_text(gauge.left_seconds)} left")
        if gauge.note:
            parts.append(printable(gauge.note))
        return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")


class _Rate:
    """Mean over the last seconds, so a stall is seen as one."""

    _WINDOW_SECONDS = 4.0

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self._samples: list[tuple[float, int]] = []

    @property
    def elapsed_seconds(self) -> float:
        return time.monotonic() - self._started_at

    @property
    def value(self) -> float:
        if not self._samples:
            return 0.0
        (first_at, first), (_, last) = self._samples[0], self._samples[-1]
        seconds = time.monotonic() - first_at
        return (last - first) / seconds if seconds > 0.2 else 0.0

    def add(self, total_bytes: int) -> None:
        now = time.monotonic()
        if self._samples and now - self._samples[-1][0] < 0.1:
            return
        self._samples.append((now, total_bytes))
        while now - self._samples[0][0] > self._WINDOW_SECONDS:
            del self._samples[0]
