"""Memory of the host that programs of our kind keep asking for."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_MOST_KEPT = 1 << 30


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, up to 1 GiB, for the next time.

    Arrays and tensors of the same large sizes are made and freed for every block of the input and in every layer. By
    default glibc hands them back to the system, which maps and zeroes each page anew: a fifth of the time of a small
    model on the CPU. Does nothing where the C library is another.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
                mallopt(parameter, _MOST_KEPT)
