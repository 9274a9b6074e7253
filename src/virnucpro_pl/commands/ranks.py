"""Several processes, one run: the first one decides whether there is anything to do."""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig
from torch.multiprocessing.spawn import ProcessExitedException

from virnucpro_pl.callbacks.ranks import RankWatch
from virnucpro_pl.errors import RankLostError, UserError
from virnucpro_pl.failures import exit_status

_SAVING_SECONDS = 25.0


def check_output_is_named(cfg: DictConfig, trainer: Trainer) -> None:
    """Refuse a dated folder where each process would take another.

    Raises:
        UserError: processes are started from outside, and no folder was named.
    """
    if cfg.output in ("-", cfg.paths.default_output) and (_come_from_outside(trainer) or trainer.num_nodes > 1):
        raise UserError(
            "output: name a folder that all processes share (output=FOLDER): each of them would take another dated one"
        )


def first_rank_decides(trainer: Trainer, decide: Callable[[], bool]) -> bool:
    """Return on all ranks what the first one decides: whether to predict.

    Ranks that Lightning starts are not there yet when the first one decides, and are only started for a yes. Those
    that torchrun or SLURM have started wait for its word, and end with it.

    Args:
        trainer: not used before.
        decide: called on the first rank.
    """
    meets = _come_from_outside(trainer)
    if meets:
        trainer.strategy.setup_environment()
    if not trainer.is_global_zero:
        answer = trainer.strategy.broadcast(None) if meets else True
        if isinstance(answer, bool):
            return answer
        sys.exit(answer)
    try:
        answer = decide()
    except BaseException as error:
        status = error.code if isinstance(error, SystemExit) else exit_status(error)
        if meets:
            trainer.strategy.broadcast(status)
        raise
    return bool(trainer.strategy.broadcast(answer)) if meets else answer


def watch_of(trainer: Trainer) -> RankWatch:
    """Return the callback that watches the ranks."""
    (watch,) = (callback for callback in trainer.callbacks if isinstance(callback, RankWatch))  # type: ignore[attr-defined]
    return watch


def end_ranks(trainer: Trainer) -> None:
    """Wait until the processes that this one has started have ended, and let none of them go on alone."""
    watch_of(trainer).close()
    for process in _spawned(trainer):
        if process.is_alive():
            process.terminate()
    for process in _spawned(trainer):
        process.join(_SAVING_SECONDS)
        if process.is_alive():
            process.kill()


def lost_rank(error: BaseException) -> RankLostError | None:
    """Tell that another process is gone, if that is what an error of torch says."""
    if isinstance(error, ProcessExitedException):
        how = f"was killed by {error.signal_name}" if error.signal_name else f"ended with status {error.exit_code}"
        process = f"process {error.error_index} (PID {error.error_pid})"
        return RankLostError(f"{process} {how}; finished batches are kept")
    if "gloo" in str(error):  # whose errors have no class of their own
        return RankLostError("a process of another rank has ended while this one waited for it; its message tells why")
    return None


def _come_from_outside(trainer: Trainer) -> bool:
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return trainer.world_size > 1 and environment is not None and not isinstance(environment, LightningEnvironment)


def _spawned(trainer: Trainer) -> list[Any]:
    """Processes of ``ddp_spawn``."""
    procs: list[Any] = []
    with suppress(AttributeError):
        procs = [process for process in trainer.strategy.launcher.procs if hasattr(process, "is_alive")]  # type: ignore[union-attr]
    return procs
