"""Heartbeats of the ranks; nothing else notices a lost rank while there are no collective calls."""

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
_MEETING_SECONDS = 3.0  # for the main thread to handle a lost rank, before there is anything to save
_SAVING_SECONDS = 25.0  # SLURM and torchrun kill after 30


class Child(Protocol):
    """Child process of ``subprocess``."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        ...

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        ...

    def kill(self) -> None:
        """Kill the process."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit status; raise subprocess.TimeoutExpired after ``timeout`` seconds."""
        ...


class RankWatch(Callback):
    """Sender of heartbeats and watcher: the first rank watches all others, which watch the first and their parent.

    A rank that notices a lost one raises ``RankLostError`` in its main thread, so that its finished batches are written
    and the whole run fails.

    Args:
        folder: work folder, which all ranks share.
        beat_seconds: time between two heartbeats.
        lost_seconds: time without a heartbeat after which a rank is lost; network file systems show them late.
    """

    def __init__(self, folder: str | Path, beat_seconds: float, lost_seconds: float):
        self._folder = Path(folder)
        self._beat_seconds = beat_seconds
        self._lost_seconds = lost_seconds
        self._lock: FolderLock | None = None
        self._children: Sequence[Child] = ()
        self._thread: threading.Thread | None = None
        self._over: threading.Event | None = None  # made in begin: callbacks are pickled for spawned ranks
        self._patience = _MEETING_SECONDS

    def begin(self, strategy: ParallelStrategy, parent: int | None) -> None:
        """Start to watch; called again once child processes exist.

        Args:
            strategy: strategy that has started the ranks.
            parent: PID of the process whose end must end this one.
        """
        self._children = self._children or _take_over_children(strategy)
        if self._thread:
            return
        first_child = strategy.global_rank + 1
        beats = Beats(self._folder / "ranks", strategy.global_rank, strategy.world_size, self._lost_seconds)
        metrics = RankMetrics(self._folder / "figures")
        over = self._over = threading.Event()

        def watch() -> None:
            next_beat = 0.0
            loss = None
            while not loss and not over.wait(_LOOK_SECONDS):
                if time.monotonic() >= next_beat:
                    beats.send()
                    next_beat = time.monotonic() + self._beat_seconds
                finished = metrics.ranks("throughput")
                running = [child for rank, child in enumerate(self._children, first_child) if rank not in finished]
                loss = _lost_child(running) or _lost_parent(parent) or beats.lost(finished)
            if loss:
                error = RankLostError(f"{loss}; finished batches are kept")
                raise_in_main_thread(error)
                if not over.wait(self._patience):  # it waits for the lost rank and handles no signal
                    log.error("Error: %s", error)
                    self._kill_children()
                    os._exit(EXIT_FAILED)

        self._thread = threading.Thread(target=watch, name="rank-watch", daemon=True)
        self._thread.start()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lock the work folder for this rank, too."""
        if not trainer.is_global_zero:
            self._lock = FolderLock(self._folder / LOCK_FILE)
            self._lock.share()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install our handler of SIGTERM again, in place of Lightning's."""
        heed_termination()
        self._patience = _SAVING_SECONDS  # there are batches to save

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Terminate the other ranks of this host, so that they write their finished batches while this one does."""
        disarm()
        self._terminate_children()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop watching, except on the first rank, which waits for the metrics of all."""
        if not trainer.is_global_zero:
            self.close(failed=False)

    def stop(self) -> None:
        """Stop watching and sending heartbeats."""
        if self._over and self._thread:
            self._over.set()
            self._thread.join()

    def close(self, failed: bool) -> None:
        """Stop, and wait for the child processes.

        Args:
            failed: terminate them first.
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
    """Remove the child processes from Lightning's launcher, which would kill them before they write their batches."""
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
    return "the process that started this one is gone" if parent is not None and os.getppid() != parent else None


class Beats:
    """Heartbeats: one file per rank, touched at regular times. Times of different hosts are never compared.

    A rank that was suspended, or cannot send heartbeats itself, starts to count anew for the others.

    Args:
        folder: folder that all ranks share.
        rank: number of this rank.
        world_size: number of ranks.
        lost_seconds: time without a heartbeat after which a rank is lost.
    """

    def __init__(self, folder: Path, rank: int, world_size: int, lost_seconds: float):
        self._folder = folder
        self._rank = rank
        self._lost_seconds = lost_seconds
        now = self._looked = time.monotonic()
        watched = range(1, world_size) if rank == 0 else range(1)
        self._seen: dict[int, tuple[int | None, float]] = dict.fromkeys(watched, (None, now))

    def send(self) -> None:
        """Send a heartbeat if the work folder exists."""
        try:
            self._folder.mkdir(exist_ok=True)
            (self._folder / str(self._rank)).touch()
        except OSError:
            self._restart()

    def _restart(self) -> None:
        now = time.monotonic()
        self._seen = {other: (beat, now) for other, (beat, _) in self._seen.items()}

    def lost(self, finished: set[int]) -> str | None:
        """Return a message that names a lost rank that has not finished, None if there is none."""
        now = time.monotonic()
        if now - self._looked > self._lost_seconds / 4:
            self._restart()
        self._looked = now
        for other, (before, since) in self._seen.items():
            try:
                beat: int | None = (self._folder / str(other)).stat().st_mtime_ns
            except OSError:
                beat = None
            if beat != before:
                self._seen[other] = beat, now
            elif other not in finished and now - since >= self._lost_seconds:
                return f"rank {other} has sent no heartbeat for {self._lost_seconds:.0f} s"
        return None
