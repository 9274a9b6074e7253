"""Ending early and in good order: on SIGTERM, on SLURM's notices, and when another rank is lost."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_TERMINATED = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """The process was told to end; raised in the main thread, wherever that is."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)


_failure: BaseException | None = None


def _signals() -> list[signal.Signals]:
    """SIGTERM, and what ``sbatch --signal`` sends before the time is up."""
    in_slurm = "SLURM_JOB_ID" in os.environ
    return [signal.SIGTERM, *((signal.SIGUSR1, signal.SIGUSR2) if in_slurm else ())]


def _stop(_number: int, _frame: FrameType | None) -> None:
    for number in _signals():  # what is being saved now must not be interrupted again
        signal.signal(number, signal.SIG_IGN)
    global _failure
    failure, _failure = _failure, None
    raise failure or Terminated()


def heed_termination() -> None:
    """Raise ``Terminated`` in the main thread, which this must be called from, when the process is told to end.

    To be called again where a library has put its own handlers in place, unless the process is ending already.
    """
    for number in _signals():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


@contextmanager
def terminable() -> Iterator[None]:
    """Heed termination within the block."""
    before = {number: signal.getsignal(number) for number in _signals()}
    try:
        for number in before:
            signal.signal(number, _stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_in_main_thread(error: BaseException) -> None:
    """Raise an error in the main thread as soon as it runs Python code; for threads that watch."""
    global _failure
    _failure = error
    os.kill(os.getpid(), signal.SIGTERM)
