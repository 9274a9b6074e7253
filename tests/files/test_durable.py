"""Atomic writes, locks, logs, signals and heartbeats when things go wrong."""

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from virnucpro_pl.distributed import heartbeat as ranks_module
from virnucpro_pl.distributed.heartbeat import Beats
from virnucpro_pl.distributed.strategy import weights_fingerprint
from virnucpro_pl.errors import RankLostError
from virnucpro_pl.files.durable import replacing, write_text
from virnucpro_pl.files.folder_lock import FolderLock
from virnucpro_pl.host.stopping import EXIT_TERMINATED, Terminated, heed_termination, raise_in_main_thread, terminable
from virnucpro_pl.runs.log_file import LogFile

# --- files


def test_a_file_is_replaced_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with replacing(file) as unfinished:
        unfinished.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_when_writing_fails(tmp_path: Path, error: BaseException) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def fail() -> None:
        with replacing(file) as unfinished:
            unfinished.write_text("half of the ne")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert file.read_text() == "old"
    assert [*tmp_path.iterdir()] == [file]


def test_content_and_name_are_flushed_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut undoes what is not flushed; the order prevents an empty file under the new name."""
    done = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        done.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name.split('.')[0]}")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_text(tmp_path / "folder" / "file", "text")
    assert done == ["flush file", "rename", "flush folder"]


# --- locks

HOLD = """
import sys, time
from pathlib import Path
from virnucpro_pl.files.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.share()
print("held", flush=True)
time.sleep(600)
"""


def test_a_lock_lasts_as_long_as_its_process_however_that_ends(tmp_path: Path) -> None:
    file = tmp_path / "work" / "lock"
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder, FolderLock(file) as lock:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert not lock.take_alone(0.0)
        threading.Timer(0.5, holder.kill).start()
        assert lock.take_alone(300.0), "half as long as the holder would have lived"


def test_a_lock_whose_file_was_removed_is_taken_on_the_new_one(tmp_path: Path) -> None:
    """A finished run removes its work folder while another start waits for it."""
    file = tmp_path / "work" / "lock"
    waiting = FolderLock(file)
    file.unlink()
    with FolderLock(file) as other:
        assert other.take_alone(0.0)
        assert not waiting.take_alone(0.0), "both would be at work"
    assert waiting.take_alone(5.0)
    waiting.release()


def test_a_lock_is_shared_by_all_and_taken_alone_by_one(tmp_path: Path) -> None:
    first, second, third = (FolderLock(tmp_path / "lock") for _ in range(3))
    first.share()
    second.share()
    assert not third.take_alone(0.0)
    first.release()
    second.release()
    assert third.take_alone(0.0)
    third.release()
    third.release()


# --- the log


def test_a_log_on_a_full_disk_falls_silent(capfd: pytest.CaptureFixture[str]) -> None:
    handler = LogFile("/dev/full", delay=True)
    for _ in range(3):
        handler.handle(logging.makeLogRecord({"msg": "x" * 10_000}))
    assert capfd.readouterr().err == ""


def test_a_log_that_may_not_be_opened_falls_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handler = LogFile(str(tmp_path / "missing" / "run.log"), delay=True)
    handler.handle(logging.makeLogRecord({"msg": "text"}))
    assert capfd.readouterr().err == ""


def test_a_mistake_in_a_log_call_is_still_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handler = LogFile(str(tmp_path / "run.log"), delay=True)
    handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))
    handler.close()
    assert "no number" in capfd.readouterr().err


# --- signals


def test_termination_is_raised_where_the_program_is() -> None:
    with terminable(), pytest.raises(Terminated) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == EXIT_TERMINATED == 143


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Handle interrupts as on a terminal; a shell makes background processes ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_followed_by_no_termination(interrupts: None) -> None:
    """A terminal interrupts all processes, and the first one terminates the others as well."""
    with terminable():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_may_predict_too() -> None:
    failed = []

    def heed() -> None:
        try:
            with terminable():
                heed_termination()
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=heed)
    thread.start()
    thread.join()
    assert not failed


def test_a_second_termination_does_not_disturb_the_saving() -> None:
    with terminable():
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        heed_termination()
        os.kill(os.getpid(), signal.SIGTERM)


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with terminable():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_error_of_a_watching_thread_reaches_the_main_one() -> None:
    error = RankLostError("rank 3 is gone")
    watching = threading.Timer(0.1, raise_in_main_thread, [error])
    with terminable():
        watching.start()
        with pytest.raises(RankLostError, match="rank 3"):
            time.sleep(60)
    with terminable(), pytest.raises(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)


# --- ranks


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += seconds
        time.sleep(0.01)  # file systems tell times apart by some milliseconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(ranks_module, "time", clock)
    return clock


def three_ranks(folder: Path) -> list[Beats]:
    folder.mkdir()
    return [Beats(folder / "ranks", rank, world_size=3, lost_seconds=180) for rank in range(3)]


@pytest.mark.parametrize(("watcher", "watched"), [(0, 2), (2, 0)])
def test_a_silent_rank_is_noticed(tmp_path: Path, clock: Clock, watcher: int, watched: int) -> None:
    ranks = three_ranks(tmp_path / "work")
    for _ in range(10):  # all give signs, for longer than one may be silent
        for rank in ranks:
            rank.send()
        assert ranks[watcher].lost(set()) is None
        clock.tick(30)
    for _ in range(7):  # all but one
        for number, rank in enumerate(ranks):
            if number != watched:
                rank.send()
        told = ranks[watcher].lost(set())
        clock.tick(30)
    assert told == f"rank {watched} has sent no heartbeat for 180 s"
    assert ranks[watcher].lost({watched}) is None, "a rank that has finished need not give any"


def test_only_the_first_rank_watches_all(tmp_path: Path, clock: Clock) -> None:
    first, second, _ = three_ranks(tmp_path / "work")
    for _ in range(10):
        first.send()
        told = [rank.lost(set()) for rank in (first, second)]
        clock.tick(30)
    assert told[0] is not None
    assert told[1] is None


def test_who_was_stopped_judges_nobody(tmp_path: Path, clock: Clock) -> None:
    """A suspended job, or a file system that did not answer."""
    first, *others = three_ranks(tmp_path / "work")
    for rank in others:
        rank.send()
    first.lost(set())
    clock.tick(3600)
    assert first.lost(set()) is None
    clock.tick(30)
    assert first.lost(set()) is None


def test_who_can_give_no_sign_judges_nobody(tmp_path: Path, clock: Clock) -> None:
    """A finished folder has no work folder, and may only be read."""
    first = Beats(tmp_path / "missing" / "ranks", 0, 2, lost_seconds=180)
    for _ in range(20):
        first.send()
        assert first.lost(set()) is None
        clock.tick(30)


def test_no_sign_is_left_where_there_is_no_work_folder(tmp_path: Path) -> None:
    Beats(tmp_path / "missing" / "ranks", 0, 2, 1.0).send()
    assert not (tmp_path / "missing").exists()


def test_weights_are_told_apart_by_a_single_bit_and_not_by_their_order_of_sums() -> None:
    module, same, other = (nn.Linear(300, 70) for _ in range(3))
    for copy in (same, other):
        copy.load_state_dict(module.state_dict())
    other.weight.data.view(torch.int32)[5, 7] ^= 1

    assert weights_fingerprint(module) == weights_fingerprint(same)
    assert weights_fingerprint(module) != weights_fingerprint(other)
    assert weights_fingerprint(module.half()) != weights_fingerprint(same)
