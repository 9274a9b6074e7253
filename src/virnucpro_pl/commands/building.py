"""What every command that uses a trainer needs."""

import logging
import warnings

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from omegaconf import DictConfig

from virnucpro_pl.errors import UserError
from virnucpro_pl.stages import StageClock


def build_trainer(cfg: DictConfig, clock: StageClock) -> Trainer:
    """Build the trainer and its callbacks.

    Raises:
        UserError: the device is not there, or a sweep asks for a strategy that cannot run in one.
    """
    _quieten_libraries()
    callbacks = [
        instantiate(callback, clock=clock) if "clock" in callback else instantiate(callback)
        for callback in cfg.callbacks.values()
    ]
    try:
        trainer: Trainer = instantiate(cfg.trainer, callbacks=callbacks)
        if cfg.trainer.precision is None and trainer.strategy.root_device.type == "cuda" and not cfg.model.exact:
            # ESM-2 was trained in float16; on the CPU nothing is gained by less than float32.
            trainer = instantiate(cfg.trainer, callbacks=callbacks, precision="16-true")
    except InstantiationException as error:
        if isinstance(error.__cause__, MisconfigurationException | ValueError):
            raise UserError(f"trainer: {' '.join(str(error.__cause__).split())}") from error
        raise
    if HydraConfig.get().mode is RunMode.MULTIRUN and isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
        raise UserError(
            f"trainer.strategy={cfg.trainer.strategy} cannot run in a sweep, where its second job would lose batches;"
            " use trainer.strategy=ddp_spawn, or one run after another"
        )
    return trainer


def device_text(trainer: Trainer) -> str:
    """Say on what a run computes."""
    device = trainer.strategy.root_device
    name = f"{torch.cuda.get_device_name(device)} ({device})" if device.type == "cuda" else str(device)
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return f"{name}{threads}, {trainer.world_size} process(es), precision {trainer.precision}"


def _quieten_libraries() -> None:
    """Silence hints that do not apply here; errors and other warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns of every retry; the last error is told
    for message in (
        r".*does not have many workers.*",  # waiting for data is measured and in the summary
        r".*Consider setting `persistent_workers=True`.*",  # workers start once, prediction is one epoch
        r".*GPU available but not used.*",  # the device is the log's first line
        r".*Couldn't infer the batch indices.*",  # batches carry their own rows
        r".*Total length of `ReadAheadLoader` across ranks is zero.*",  # an input without ORFs
        r".*isinstance\(treespec, LeafSpec\).*",  # Lightning with torch 2.13
    ):
        warnings.filterwarnings("ignore", message)
