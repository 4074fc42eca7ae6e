"""Blocking calls beside the event loop, on a thread that cannot keep the command from ending."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


class Worker:
    """Runs calls one after another on a daemon thread.

    asyncio's own executor is waited for at exit; a read from a silent pipe, or a write to one that nobody reads, would
    make Ctrl-C wait with it.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def run(self, call: Callable[[], _Result]) -> asyncio.Future[_Result]:
        """The call's result, or its exception. A call that has not begun when its future is cancelled is left out."""
        result: concurrent.futures.Future[_Result] = concurrent.futures.Future()

        def job() -> None:
            if result.set_running_or_notify_cancel():
                try:
                    result.set_result(call())
                except BaseException as failure:
                    result.set_exception(failure)

        self._jobs.put(job)
        return asyncio.wrap_future(result)

    def close(self, *, wait: bool) -> None:
        """Take no more calls; `wait` for those that were taken."""
        self._jobs.put(None)
        if wait:
            self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
