"""Trainers of the commands: of encoders, of heads, and of scores from embeddings."""

import logging
import re
import warnings
from typing import Any

import pyarrow as pa
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig

from virnucpro_pl.configuration.hydra_config import build
from virnucpro_pl.distributed.heartbeat import RankWatch
from virnucpro_pl.distributed.lightning_internals import SubprocessLauncher
from virnucpro_pl.distributed.strategy import SeparateRanks
from virnucpro_pl.errors import UserError
from virnucpro_pl.host.stage_clock import StageClock


def build_trainer(cfg: DictConfig, clock: StageClock) -> Trainer:
    """Build the trainer of encoders and its callbacks.

    Args:
        cfg: configuration with ``trainer``, ``callbacks`` and ``model``.
        clock: clock of the stages, for the callbacks that need it.

    Raises:
        UserError: the device is missing, or the strategy cannot run in a sweep.
    """
    _quieten_libraries()
    callbacks = _callbacks(cfg, clock)
    trainer = _trainer(cfg, callbacks)
    if better := _better_settings(cfg, trainer):
        trainer = _trainer(cfg, callbacks, **better)
    _check_processes(trainer)
    if HydraConfig.get().mode is RunMode.MULTIRUN and isinstance(trainer.strategy.launcher, SubprocessLauncher):
        raise UserError(
            f"trainer.strategy={cfg.trainer.strategy} cannot run in a sweep, where its second job would lose batches;"
            " use trainer.strategy=ddp_spawn, or one run after another"
        )
    return trainer


def build_fit_trainer(cfg: DictConfig) -> Trainer:
    """Build the trainer of a head, its callbacks and its loggers.

    Raises:
        UserError: the device is missing.
    """
    _quieten_libraries()
    loggers = [build(logger) for logger in cfg.logger.values() if logger]
    trainer = _trainer(cfg, _callbacks(cfg, None), logger=loggers)
    _check_processes(trainer)
    return trainer


def build_score_trainer(cfg: DictConfig) -> Trainer:
    """Build a trainer that scores embeddings.

    Raises:
        UserError: the device is missing.
    """
    _quieten_libraries()
    return _trainer(cfg, [])


def _use_threads(cfg: DictConfig) -> None:
    """Set the number of threads; without a setting, libraries use all cores of the process."""
    if cfg.threads is None:
        return
    if not isinstance(cfg.threads, int) or cfg.threads < 1:
        raise UserError(f"threads={cfg.threads}: give a number above 0, or null for all cores")
    torch.set_num_threads(cfg.threads)
    pa.set_cpu_count(cfg.threads)


def _callbacks(cfg: DictConfig, clock: StageClock | None) -> list[Callback]:
    """Build the callbacks that are not null.

    Raises:
        UserError: a callback refuses its settings.
    """
    callbacks = []
    for name, callback in cfg.callbacks.items():
        if callback:
            try:
                callbacks.append(build(callback, clock=clock) if "clock" in callback else build(callback))
            except UserError:
                raise
            except (MisconfigurationException, ValueError, TypeError) as error:
                raise UserError(f"callbacks.{name}: {' '.join(str(error).split())}") from error
    return callbacks


def _trainer(cfg: DictConfig, callbacks: list[Callback], **settings: Any) -> Trainer:
    _use_threads(cfg)
    try:
        trainer: Trainer = build(cfg.trainer, callbacks=callbacks, **settings)
    except UserError:
        raise
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split()).rstrip("!.")
        is_of_device = re.search("accelerator|device|gpu|cuda|mps", reason, re.IGNORECASE)
        hint = "; trainer.accelerator=auto takes what there is" if is_of_device else ""
        raise UserError(f"trainer: {reason}{hint}") from error
    return trainer


def _check_processes(trainer: Trainer) -> None:
    """Raise UserError if a launcher started another number of processes than expected; Lightning checks too late."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None or not environment.creates_processes_externally:
        return
    try:
        environment.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


def _better_settings(cfg: DictConfig, trainer: Trainer) -> dict[str, Any]:
    """Return the settings that depend on the devices, which Lightning has found."""
    better: dict[str, Any] = {}
    if cfg.trainer.precision is None and trainer.strategy.root_device.type == "cuda" and not cfg.model.exact:
        # ESM-2 was trained in float16. On the CPU float32 is as fast.
        better["precision"] = "16-true"
    if type(trainer.strategy) is DDPStrategy:
        starts_scripts = isinstance(trainer.strategy.launcher, SubprocessLauncher)
        (watch,) = (callback for callback in trainer.callbacks if isinstance(callback, RankWatch))  # type: ignore[attr-defined]
        better["strategy"] = SeparateRanks("popen" if starts_scripts else "spawn", watch)
    return better


def _quieten_libraries() -> None:
    """Silence the hints of libraries that do not apply here; errors and other warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns of every retry
    for message in (
        r".*does not have many workers.*",  # waiting for data is measured and in the summary
        r".*Consider setting `persistent_workers=True`.*",  # workers start once, prediction is one epoch
        r".*GPU available but not used.*",  # the device is the log's first line
        r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        r".*Couldn't infer the batch indices.*",  # batches carry their own rows
        r".*Total length of `ReadAheadLoader` across ranks is zero.*",  # an input without ORFs
        r".*isinstance\(treespec, LeafSpec\).*",  # Lightning with torch 2.13
    ):
        warnings.filterwarnings("ignore", message)
