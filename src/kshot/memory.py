"""The C library's allocator: a training asks for the same large blocks again and again."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Of glibc's `mallopt`."""


def keep_freed_memory() -> None:
    """Let this process reuse large blocks instead of giving them back to the system at once.

    With glibc's defaults every large tensor is mapped and cleared page by page whenever it is
    made, which costs a good part of a step on a CPU. Elsewhere than on Linux nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 2**26)
