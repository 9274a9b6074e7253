"""Decisions of the first rank, and the end of the others."""

import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from virnucpro_pl import errors
from virnucpro_pl.distributed.heartbeat import RankWatch
from virnucpro_pl.distributed.strategy import SeparateRanks
from virnucpro_pl.errors import RankLostError, RunFailedError, UserError
from virnucpro_pl.failures import exit_status
from virnucpro_pl.host.stopping import Terminated

_SAVING_SECONDS = 25.0
_FIRST_SPEAKS_SECONDS = 20.0


def check_output_is_named(cfg: DictConfig, trainer: Trainer) -> None:
    """Raise UserError if a launcher started the processes and no output folder is given.

    Each process would make another dated folder.
    """
    if cfg.output in ("-", cfg.paths.default_output) and (_come_from_outside(trainer) or trainer.num_nodes > 1):
        if not trainer.is_global_zero:
            time.sleep(
                _FIRST_SPEAKS_SECONDS
            )  # so that the launcher does not end the first rank before it logs the error
        raise UserError(
            "output: each process would make another dated folder; give one that all processes share: output=FOLDER"
        )


def first_rank_decides(trainer: Trainer, decide: Callable[[], bool], is_finished: Callable[[], bool]) -> bool:
    """Return on all ranks whether to predict, as the first rank decides.

    Ranks that Lightning starts do not exist yet, and are started only to predict. Ranks of torchrun or SLURM wait for
    the decision and exit with the first rank. Nodes started by hand look for the record of a finished run.

    Args:
        trainer: a new trainer.
        decide: called on the first rank.
        is_finished: returns whether the folder holds a finished run, for nodes started by hand.
    """
    meets = _come_from_outside(trainer)
    if meets:
        trainer.strategy.setup_environment()
    if not trainer.is_global_zero:
        answer = trainer.strategy.broadcast(None) if meets else not is_finished()
        if isinstance(answer, bool):
            return answer
        sys.exit(answer)
    if trainer.num_nodes > 1 and not meets and isinstance(trainer.strategy, SeparateRanks):
        trainer.strategy.begin_watch()  # other nodes are waiting
    try:
        answer = decide()
    except BaseException as error:
        if meets:
            with suppress(RuntimeError):  # the others may be gone
                trainer.strategy.broadcast(error.code if isinstance(error, SystemExit) else exit_status(error))
        raise
    return bool(trainer.strategy.broadcast(answer)) if meets else answer


def watch_of(trainer: Trainer) -> RankWatch:
    """Return the callback that notices lost ranks."""
    (watch,) = (callback for callback in trainer.callbacks if isinstance(callback, RankWatch))  # type: ignore[attr-defined]
    return watch


def end_ranks(trainer: Trainer, failed: bool) -> None:
    """Wait until the child processes have ended, and kill those that do not.

    Args:
        trainer: trainer that started them.
        failed: terminate them first, as this process has failed.
    """
    watch_of(trainer).close(failed)
    for process in _spawned(trainer):
        if process.is_alive():
            process.terminate()
    for process in _spawned(trainer):
        process.join(_SAVING_SECONDS)
        if process.is_alive():
            process.kill()


def from_another_rank(error: BaseException) -> BaseException | None:
    """Return the error of another process that an error of torch stands for, None if there is none."""
    if isinstance(error, ProcessExitedException):
        how = f"was killed by {error.signal_name}" if error.signal_name else f"ended with status {error.exit_code}"
        process = f"process {error.error_index} (PID {error.error_pid})"
        return RankLostError(f"{process} {how}; finished batches are kept")
    if isinstance(error, ProcessRaisedException):
        if match := re.search(r"^virnucpro_pl\.errors\.(\w+): (.*)", str(error), re.MULTILINE):
            kind: type[Exception] = getattr(errors, match[1], RunFailedError)
            return kind(match[2])
        if match := re.search(r"^OSError: \[Errno (\d+)\]", str(error), re.MULTILINE):
            return OSError(int(match[1]), os.strerror(int(match[1])))
    if "is killed by signal: Terminated" in str(error):  # torch's DataLoader, of its workers
        return Terminated()
    if "gloo" in str(error):  # its errors have no class of their own
        return RankLostError("another process has ended while this one waited for it; see its own message or log")
    return None


def _come_from_outside(trainer: Trainer) -> bool:
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return trainer.world_size > 1 and environment is not None and not isinstance(environment, LightningEnvironment)


def _spawned(trainer: Trainer) -> list[Any]:
    """Return the child processes of ``ddp_spawn``."""
    procs = getattr(trainer.strategy.launcher, "procs", None) or ()
    return [process for process in procs if hasattr(process, "is_alive")]
