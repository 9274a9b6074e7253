"""Memory of the host that programs of our kind keep asking for."""

import ctypes
import resource
import sys
from pathlib import Path
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_MOST_KEPT = 1 << 30


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, up to 1 GiB, for the next time.

    Arrays and tensors of the same large sizes are made and freed for every block of the input and in every layer. By
    default glibc hands them back to the system, which maps and zeroes each page anew: a fifth of the time of a small
    model on the CPU. Does nothing where the C library is another.
    """
    # Older versions refuse more than 32 MiB here.
    if _call_glibc("mallopt", _M_MMAP_THRESHOLD, _MOST_KEPT) or _call_glibc("mallopt", _M_MMAP_THRESHOLD, 32 << 20):
        _call_glibc("mallopt", _M_TRIM_THRESHOLD, _MOST_KEPT)


def return_freed_memory() -> None:
    """Hand back to the system what is kept."""
    _call_glibc("malloc_trim", 0)


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes.

    On Linux, ``ru_maxrss`` begins with the peak of the process that started this one, so ``VmHWM`` is read there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text(encoding="ascii", errors="replace").partition("VmHWM:")[2].split(None, 1)[0])
    kib = 1024 if sys.platform != "darwin" else 1  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kib


def _call_glibc(name: str, *arguments: int) -> int:
    function: Any = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    return 0 if function is None else int(function(*arguments))
