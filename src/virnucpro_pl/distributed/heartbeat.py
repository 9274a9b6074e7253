"""Noticing ranks that are gone, since nothing else does while each works by itself."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ParallelStrategy

from virnucpro_pl.errors import RankLostError
from virnucpro_pl.failures import EXIT_FAILED
from virnucpro_pl.files.folder_lock import LOCK_FILE, FolderLock
from virnucpro_pl.host.stopping import disarm, heed_termination, raise_in_main_thread
from virnucpro_pl.runs.rank_metrics import RankMetrics

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_MEETING_SECONDS = 3.0  # what the main thread is given to hear of a lost rank before there is anything to save
_SAVING_SECONDS = 25.0  # what SLURM and torchrun allow before they kill is 30


class Child(Protocol):
    """A process this one has started, of ``subprocess``."""

    pid: int

    def poll(self) -> int | None:
        """Exit status, None while it runs."""
        ...

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Exit status once it has ended; subprocess.TimeoutExpired after ``timeout`` seconds."""
        ...


class RankWatch(Callback):
    """Every rank gives signs of life; the first watches all others, and all watch the first and their parent.

    A rank that finds another one gone raises ``RankLostError`` in its main thread, whatever it is doing there, so that
    its finished batches are written and the run fails as a whole.

    Args:
        folder: the work folder, which all ranks share.
        beat_seconds: time between two signs of life.
        lost_seconds: a rank without any for so long is gone; network file systems show them late.
    """

    def __init__(self, folder: str | Path, beat_seconds: float, lost_seconds: float):
        self._folder = Path(folder)
        self._beat_seconds = beat_seconds
        self._lost_seconds = lost_seconds
        self._lock: FolderLock | None = None
        self._children: Sequence[Child] = ()
        self._thread: threading.Thread | None = None
        self._over: threading.Event | None = None  # made where it is used: callbacks travel to spawned ranks
        self._patience = _MEETING_SECONDS

    def begin(self, strategy: ParallelStrategy, parent: int | None) -> None:
        """Start to watch; called again once this process has started others.

        Args:
            strategy: knows the ranks.
            parent: PID of the process without which this one must not go on.
        """
        self._children = self._children or _take_over_children(strategy)
        if self._thread:
            return
        first_child = strategy.global_rank + 1
        beats = Beats(self._folder / "ranks", strategy.global_rank, strategy.world_size, self._lost_seconds)
        figures = RankMetrics(self._folder / "figures")
        over = self._over = threading.Event()

        def watch() -> None:
            next_beat = 0.0
            told = None
            while not told and not over.wait(_LOOK_SECONDS):
                if time.monotonic() >= next_beat:
                    beats.give()
                    next_beat = time.monotonic() + self._beat_seconds
                finished = figures.ranks("throughput")
                running = [child for rank, child in enumerate(self._children, first_child) if rank not in finished]
                told = _lost_child(running) or _lost_parent(parent) or beats.lost(finished)
            if told:
                error = RankLostError(f"{told}; finished batches are kept")
                raise_in_main_thread(error)
                if not over.wait(self._patience):  # it waits for the lost rank, where no signal is heard
                    log.error("Error: %s", error)
                    self._kill_children()
                    os._exit(EXIT_FAILED)

        self._thread = threading.Thread(target=watch, name="rank-watch", daemon=True)
        self._thread.start()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have the folder known as one in use by this rank too."""
        if not trainer.is_global_zero:
            self._lock = FolderLock(self._folder / LOCK_FILE)
            self._lock.share()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take termination back into our own hands: Lightning has put its handler in place."""
        heed_termination()
        self._patience = _SAVING_SECONDS  # from now on there is something to save

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let the other ranks of this machine write what they have, at the same time as this one, undisturbed."""
        disarm()
        self._terminate_children()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop watching; the first rank goes on until it has the figures of all."""
        if not trainer.is_global_zero:
            self.close(failed=False)

    def stop(self) -> None:
        """Stop watching and giving signs of life."""
        if self._over and self._thread:
            self._over.set()
            self._thread.join()

    def close(self, failed: bool) -> None:
        """Stop, and wait for the ranks this process has started.

        Args:
            failed: tell them to end first.
        """
        self.stop()
        if failed:
            self._terminate_children()
        deadline = time.monotonic() + self._patience
        for child in self._children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
        self._children = ()
        if self._lock:
            self._lock.release()

    def _terminate_children(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)

    def _kill_children(self) -> None:
        for child in self._children:
            child.kill()


def _take_over_children(strategy: ParallelStrategy) -> Sequence[Child]:
    """Take the ranks this process has started away from Lightning.

    It would kill all of them, and this process too, without a word and with what they have not written yet.
    """
    procs: Any = getattr(strategy.launcher, "procs", None)
    if not procs:
        return ()
    children = tuple(procs)
    procs.clear()
    return children


def _lost_child(children: Sequence[Child]) -> str | None:
    for child in children:
        if status := child.poll():
            how = f"was killed by signal {-status}" if status < 0 else f"failed with exit status {status}"
            return f"another process of this machine (PID {child.pid}) {how}"
    return None


def _lost_parent(parent: int | None) -> str | None:
    return "the process that has started this one is gone" if parent is not None and os.getppid() != parent else None


class Beats:
    """Signs of life: one file per rank, touched again and again. Times of different machines are never compared.

    A rank that was stopped for a while, or cannot give signs itself, does not judge others.

    Args:
        folder: shared by all ranks.
        rank: this one.
        world_size: how many there are.
        lost_seconds: how long a rank may be silent.
    """

    def __init__(self, folder: Path, rank: int, world_size: int, lost_seconds: float):
        self._folder = folder
        self._rank = rank
        self._lost_seconds = lost_seconds
        now = self._looked = time.monotonic()
        watched = range(1, world_size) if rank == 0 else range(1)
        self._seen: dict[int, tuple[int | None, float]] = dict.fromkeys(watched, (None, now))

    def give(self) -> None:
        """Give a sign, unless the work folder is not there (yet, or any more)."""
        try:
            self._folder.mkdir(exist_ok=True)
            (self._folder / str(self._rank)).touch()
        except OSError:
            self._judge_anew()

    def _judge_anew(self) -> None:
        now = time.monotonic()
        self._seen = {other: (beat, now) for other, (beat, _) in self._seen.items()}

    def lost(self, finished: set[int]) -> str | None:
        """Name a rank that has been silent for too long and has not finished."""
        now = time.monotonic()
        if now - self._looked > self._lost_seconds / 4:
            self._judge_anew()
        self._looked = now
        for other, (before, since) in self._seen.items():
            try:
                beat: int | None = (self._folder / str(other)).stat().st_mtime_ns
            except OSError:
                beat = None
            if beat != before:
                self._seen[other] = beat, now
            elif other not in finished and now - since >= self._lost_seconds:
                return f"rank {other} has given no sign of life for {self._lost_seconds:.0f} s"
        return None
