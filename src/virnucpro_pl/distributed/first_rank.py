"""Several processes, one run: the first one decides whether there is anything to do."""

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
    """Refuse a dated folder where each process would take another.

    Raises:
        UserError: processes are started from outside, and no folder was named.
    """
    if cfg.output in ("-", cfg.paths.default_output) and (_come_from_outside(trainer) or trainer.num_nodes > 1):
        if not trainer.is_global_zero:
            time.sleep(_FIRST_SPEAKS_SECONDS)  # or it may be ended before it has said why
        raise UserError(
            "output: name a folder that all processes share (output=FOLDER): each of them would take another dated one"
        )


def first_rank_decides(trainer: Trainer, decide: Callable[[], bool], is_finished: Callable[[], bool]) -> bool:
    """Return on all ranks what the first one decides: whether to predict.

    Ranks that Lightning starts are not there yet when the first one decides, and are only started for a yes. Those
    that torchrun or SLURM have started wait for its word, and end with it. Nodes started by hand cannot be told, but
    see the record of a finished run.

    Args:
        trainer: not used before.
        decide: called on the first rank.
        is_finished: whether a finished run is in the folder, for nodes started by hand.
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
        trainer.strategy.begin_watch()  # other nodes wait already
    try:
        answer = decide()
    except BaseException as error:
        if meets:
            with suppress(RuntimeError):  # the others may be gone, which must not hide the reason
                trainer.strategy.broadcast(error.code if isinstance(error, SystemExit) else exit_status(error))
        raise
    return bool(trainer.strategy.broadcast(answer)) if meets else answer


def watch_of(trainer: Trainer) -> RankWatch:
    """Return the callback that watches the ranks."""
    (watch,) = (callback for callback in trainer.callbacks if isinstance(callback, RankWatch))  # type: ignore[attr-defined]
    return watch


def end_ranks(trainer: Trainer, failed: bool) -> None:
    """Wait until the processes that this one has started have ended, and let none of them go on alone.

    Args:
        trainer: has started them.
        failed: tell them to end first, as this one does.
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
    """Tell what another process has met, or that it is gone, if that is what an error of torch says."""
    if isinstance(error, ProcessExitedException):
        how = f"was killed by {error.signal_name}" if error.signal_name else f"ended with status {error.exit_code}"
        process = f"process {error.error_index} (PID {error.error_pid})"
        return RankLostError(f"{process} {how}; finished batches are kept")
    if isinstance(error, ProcessRaisedException):
        if told := re.search(r"^virnucpro_pl\.errors\.(\w+): (.*)", str(error), re.MULTILINE):
            kind: type[Exception] = getattr(errors, told[1], RunFailedError)
            return kind(told[2])
        if told := re.search(r"^OSError: \[Errno (\d+)\]", str(error), re.MULTILINE):
            return OSError(int(told[1]), os.strerror(int(told[1])))
    if "is killed by signal: Terminated" in str(error):  # torch's DataLoader of its workers, which were told as well
        return Terminated()
    if "gloo" in str(error):  # whose errors have no class of their own
        return RankLostError("another process has ended while this one waited for it; its own message or log tells why")
    return None


def _come_from_outside(trainer: Trainer) -> bool:
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return trainer.world_size > 1 and environment is not None and not isinstance(environment, LightningEnvironment)


def _spawned(trainer: Trainer) -> list[Any]:
    """Processes of ``ddp_spawn``."""
    procs = getattr(trainer.strategy.launcher, "procs", None) or ()
    return [process for process in procs if hasattr(process, "is_alive")]
