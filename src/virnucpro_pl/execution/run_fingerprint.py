"""What the results of a run depend on, to tell whether an output folder belongs to the run that is asked for."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl import __version__
from virnucpro_pl.configuration.hydra_config import typed_settings
from virnucpro_pl.execution.trainer import numerics_of
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.runs.fingerprint import CALLS, JOB

_ORFS = ("data.chunk_length", "data.chunking", "data.ambiguity", "data.alphabet")


def settings_fingerprint(cfg: DictConfig, trainer: Trainer, model: VirNucPro) -> dict[str, Any]:
    """Return the settings that decide on results, by the key a user knows; no file is read.

    Neither the number of devices nor that of tokens in a batch is among them, but the jobs of a sweep, whose speed is
    compared, are told apart by all that was asked for.
    """
    hydra = HydraConfig.get()
    job = {JOB: typed_settings()} if hydra.mode is RunMode.MULTIRUN else {}
    numerics = numerics_of(trainer, model)
    return {
        "version": __version__,
        **{key: OmegaConf.select(cfg, key) for key in (*_ORFS, *CALLS)},
        "trainer.precision": numerics.pop("precision"),
        "device": numerics.pop("device"),
        **{f"model.{key}": value for key, value in numerics.items()},
        **job,
    }
