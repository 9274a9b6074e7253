"""Imported by Python itself at its start, from PYTHONPATH: kills the process right before a chosen system call.

Calls that touch the folder CHAOS_BELOW are counted by kind: ``rename``, ``unlink``, ``open`` (for writing) and
``fsync``. ``CHAOS_AT=rename:7`` kills at the seventh rename. ``CHAOS_COUNTS=FILE`` writes how many there were instead.
"""

import atexit
import json
import os
import signal
import sys
from pathlib import Path

_BELOW = os.environ.get("CHAOS_BELOW", "")
_KIND, _, _NUMBER = os.environ.get("CHAOS_AT", "").partition(":")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_COUNTS = {"rename": 0, "unlink": 0, "open": 0, "fsync": 0}


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _count(kind: str, path: str | bytes | os.PathLike) -> None:
    if str(Path(os.fsdecode(path)).absolute()).startswith(_BELOW):
        _COUNTS[kind] += 1
        if kind == _KIND and _COUNTS[kind] == int(_NUMBER):
            os.kill(os.getpid(), signal.SIGKILL)


def _watch(event: str, arguments: tuple) -> None:
    if event == "open":
        path, _, flags = arguments
        if path is not None and not isinstance(path, int) and flags & _WRITING:
            _count("open", path)
    elif event == "os.rename":
        _count("rename", arguments[1])
    elif event == "os.remove":
        path, folder = arguments
        _count("unlink", path if folder == -1 else _path_of(folder) / os.fsdecode(path))


if _BELOW:
    _fsync = os.fsync

    def _counted_fsync(descriptor: int) -> None:
        _count("fsync", _path_of(descriptor))
        _fsync(descriptor)

    os.fsync = _counted_fsync  # it has no audit event
    sys.addaudithook(_watch)
    if "CHAOS_COUNTS" in os.environ:
        atexit.register(lambda: open(os.environ["CHAOS_COUNTS"], "w").write(json.dumps(_COUNTS)))  # noqa: SIM115
