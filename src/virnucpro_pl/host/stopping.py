"""Ending early and in good order: on SIGTERM, on interrupts, on SLURM's notices, and when another rank is lost."""

import os
import signal
import threading
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
    """What ends a process: SIGTERM, an interrupt, a lost terminal, and what ``sbatch --signal`` sends."""
    found = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    if "SLURM_JOB_ID" in os.environ and "SUBMITIT_EXECUTOR" not in os.environ:  # submitit has handlers of its own
        found += [signal.SIGUSR1, signal.SIGUSR2]
    return found


def _is_main_thread() -> bool:
    """Whether this is the thread that may set handlers, and that they run in."""
    return threading.current_thread() is threading.main_thread()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Stand in for SIG_IGN, of which Python warns where a signal has come already."""


def _stop(number: int, _frame: FrameType | None) -> None:
    disarm()
    global _failure
    failure, _failure = _failure, None
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise failure or Terminated()


def disarm() -> None:
    """Let nothing interrupt what is being saved now, also no worker process that was told to end as well."""
    if _is_main_thread():
        for number in (*_signals(), signal.SIGCHLD):
            signal.signal(number, _nothing)


def heed_termination() -> None:
    """Raise ``Terminated``, or KeyboardInterrupt, in the main thread when the process is told to end.

    To be called again where a library has put its own handlers in place; not once the process is ending. Signals that
    the process was started to ignore, as by ``nohup``, stay ignored. Does nothing in another thread.
    """
    if not _is_main_thread():
        return
    for number in _signals():
        if signal.getsignal(number) not in (signal.SIG_IGN, _nothing):
            signal.signal(number, _stop)


@contextmanager
def terminable() -> Iterator[None]:
    """Heed termination within the block."""
    if not _is_main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*_signals(), signal.SIGCHLD)}
    try:
        heed_termination()
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_in_main_thread(error: BaseException) -> None:
    """Raise an error in the main thread as soon as it runs Python code there; for threads that watch."""
    global _failure
    if signal.getsignal(signal.SIGTERM) is _stop:
        _failure = error
        os.kill(os.getpid(), signal.SIGTERM)
