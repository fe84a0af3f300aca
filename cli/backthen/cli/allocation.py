"""How the C library hands out memory, set for a program that moves megabytes from thread to thread."""

from __future__ import annotations

import ctypes

# From glibc's <malloc.h>; mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MMAP_THRESHOLD_BYTES = 8 << 20
_TRIM_THRESHOLD_BYTES = 64 << 20
_ARENAS_MAX = 2


def reuse_freed_memory() -> None:
    """Keep freed memory for the next allocation, where the C library can be told to.

    Otherwise glibc maps each megabyte anew and gives it back at once, and the page faults cost more than the work done
    in it (docs/performance.md). What is kept is bounded by the most that is in use at once, in each arena; so there are
    few of those, which costs nothing, since threads take turns at the interpreter anyway.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS_MAX)
