"""Provenance of a run: command, version, device and time, for the log and the run record."""

import platform
import subprocess
import time
from typing import cast

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl import __version__
from virnucpro_pl.configuration.hydra_config import PACKAGE, command
from virnucpro_pl.runs.record_types import SCHEMA_VERSION, Provenance, Settings


def provenance(cfg: DictConfig, began: float) -> Provenance:
    """Return command, version, time and configuration of a run, for its record.

    Args:
        cfg: configuration of the run.
        began: start of the run by ``time.monotonic()``, which changes of the clock do not move, in seconds.
    """
    hydra = HydraConfig.get()
    seconds = time.monotonic() - began
    return {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "command": command(),
        "directory": str(hydra.runtime.cwd),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(time.time() - seconds)),
        "seconds": round(seconds, 3),
        "commit": _commit(),
        "platform": platform.platform(),
        "config": cast("Settings", OmegaConf.to_container(cfg, resolve=True)),
    }


def _commit() -> str | None:
    """Return the commit of the checkout that runs, None for an installed package."""
    if not (PACKAGE.parents[1] / ".git").exists():
        return None
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or no repository
        return None


def device_text(trainer: Trainer) -> str:
    """Return the device, threads, processes and precision of a run, for the log."""
    device = trainer.strategy.root_device
    name = f"{torch.cuda.get_device_name(device)} ({device})" if device.type == "cuda" else str(device)
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return f"{name}{threads}, {trainer.world_size} process(es), precision {trainer.precision}"
