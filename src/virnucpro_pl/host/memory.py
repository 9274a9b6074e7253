"""Host memory: reuse of freed memory, and peak memory."""

import ctypes
import resource
import sys
from pathlib import Path
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_MOST_KEPT = 1 << 30


def keep_freed_memory() -> None:
    """Make glibc keep up to 1 GiB of freed memory for reuse; no effect with other C libraries.

    Arrays and tensors of the same large sizes are allocated and freed for every block of the input and in every layer.
    By default glibc returns them to the system, which maps and zeroes each page anew: a fifth of the time of a small
    model on the CPU.
    """
    # Older versions refuse more than 32 MiB here.
    if _call_glibc("mallopt", _M_MMAP_THRESHOLD, _MOST_KEPT) or _call_glibc("mallopt", _M_MMAP_THRESHOLD, 32 << 20):
        _call_glibc("mallopt", _M_TRIM_THRESHOLD, _MOST_KEPT)


def return_freed_memory() -> None:
    """Return freed memory to the system."""
    _call_glibc("malloc_trim", 0)


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes.

    On Linux, ``ru_maxrss`` includes the peak of the parent process, so ``VmHWM`` is read.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text(encoding="ascii", errors="replace").partition("VmHWM:")[2].split(None, 1)[0])
    kib = 1024 if sys.platform != "darwin" else 1  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kib


def _call_glibc(name: str, *arguments: int) -> int:
    function: Any = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    return 0 if function is None else int(function(*arguments))
