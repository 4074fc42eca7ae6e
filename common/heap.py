"""The C library's heap, where the chunks of a stream lie. With another C library than glibc nothing here does anything.

The one fact to know: what is freed stays in the process for the next time. After a transfer that is 7 to 13 MiB of
holes, which would be kept until the process ends.
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
"""mallopt(3)."""
_libc = ctypes.CDLL(None)
_mallopt = getattr(_libc, "mallopt", None)
_malloc_trim = getattr(_libc, "malloc_trim", None)


def limit_heaps(count: int) -> None:
    """Let all threads share so many heaps; before they are started. Each new thread would make one of its own."""
    if _mallopt is not None:
        _mallopt(_M_ARENA_MAX, count)


def give_back() -> None:
    """Return freed memory to the system: about 1 ms when there is much. For times when no transfer runs: the next one
    asks for the same memory again, and the system has to fill it with zeros before."""
    if _malloc_trim is not None:
        _malloc_trim(0)
