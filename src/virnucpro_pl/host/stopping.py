"""Orderly termination on SIGTERM, interrupts, SLURM's notices, and the loss of another rank."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_TERMINATED = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """The process received a signal to terminate; raised in the main thread."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)


_failure: BaseException | None = None


def _signals() -> list[signal.Signals]:
    """Return the signals that end a process: SIGTERM, interrupt, hang-up, and those of ``sbatch --signal``."""
    found = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    if "SLURM_JOB_ID" in os.environ and "SUBMITIT_EXECUTOR" not in os.environ:  # submitit has its own handlers
        found += [signal.SIGUSR1, signal.SIGUSR2]
    return found


def _is_main_thread() -> bool:
    """Return whether this is the main thread, in which handlers are set and run."""
    return threading.current_thread() is threading.main_thread()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Ignore a signal; with SIG_IGN, Python would warn of pending signals."""


def _stop(number: int, _frame: FrameType | None) -> None:
    disarm()
    global _failure
    failure, _failure = _failure, None
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise failure or Terminated()


def disarm() -> None:
    """Ignore further signals while results are saved."""
    if _is_main_thread():
        for number in (*_signals(), signal.SIGCHLD):
            signal.signal(number, _nothing)


def heed_termination() -> None:
    """Install handlers that raise ``Terminated`` or KeyboardInterrupt in the main thread.

    Call it again after a library has installed its own handlers, but not while the process is ending. Signals that were
    ignored at the start, as by ``nohup``, stay ignored. No effect in other threads.
    """
    if not _is_main_thread():
        return
    for number in _signals():
        if signal.getsignal(number) not in (signal.SIG_IGN, _nothing):
            signal.signal(number, _stop)


@contextmanager
def terminable() -> Iterator[None]:
    """Handle termination within the block."""
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
    """Raise an error in the main thread, as soon as it runs Python code."""
    global _failure
    if signal.getsignal(signal.SIGTERM) is _stop:
        _failure = error
        os.kill(os.getpid(), signal.SIGTERM)
