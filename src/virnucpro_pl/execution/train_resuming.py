"""Fingerprint of a training, and the checkpoint from which it resumes."""

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl import __version__
from virnucpro_pl.configuration.hydra_config import build, value_of
from virnucpro_pl.errors import DamagedWeightsError, UserError, did_you_mean, escaped
from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.files.file_names import utf8_name
from virnucpro_pl.training.labelled_store import LabelledStore
from virnucpro_pl.training.module import MakeOptimizer, MakeScheduler, logged_metrics

_IDENTITY = (
    *("split", "seed", "batch_size", "class_weights", "optimizer", "scheduler", "fine_tuning"),
    *("model.inputs", "model.head.hidden_dim", "model.head.dropout"),
)
_NOT_OF_RESULT = {
    *("_target_", "accelerator", "devices", "num_nodes", "strategy", "precision", "logger", "default_root_dir"),
    *("log_every_n_steps", "enable_model_summary", "enable_progress_bar", "num_sanity_val_steps"),
}
"""Settings of the trainer that do not change the head, or are part of the fingerprint under another name"""
_SHOWING = {"last", "progress", "epochs"}
"""Callbacks that do not change the head"""


def training_fingerprint(cfg: DictConfig, store: LabelledStore, trainer: Trainer) -> dict[str, Any]:
    """Return the settings that the head depends on, by key."""
    head = cfg.model.head.weights
    return {
        "version": __version__,
        "input": [store.dataset["key"]],
        "model": cfg.model.name,
        **{name: value for key in _IDENTITY for name, value in _flat(key, OmegaConf.select(cfg, key)).items()},
        **_trainer_settings(cfg),
        "model.head.weights": None if head is None else sorted(sha256_of(Path(head)).values()),
        "trainer.precision": str(trainer.precision),
        "device": trainer.strategy.root_device.type,
    }


def _trainer_settings(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings of trainer and callbacks that the head depends on."""
    trainer = {str(name): value for name, value in cfg.trainer.items() if not OmegaConf.is_config(value)}
    found = {f"trainer.{name}": value for name, value in trainer.items() if name not in _NOT_OF_RESULT}
    for name, node in cfg.callbacks.items():
        if name not in _SHOWING:
            found |= _flat(f"callbacks.{name}", node)
    return found


def _flat(key: str, node: Any) -> dict[str, Any]:
    """Return a part of the configuration with dotted keys."""
    if not OmegaConf.is_config(node):
        return {key: node}
    content = OmegaConf.to_container(node)
    if not isinstance(content, dict):
        return {key: content}
    named = {key: content["_target_"].rpartition(".")[2]} if "_target_" in content else {}
    settings = {str(name): value for name, value in content.items()}
    return named | {f"{key}.{name}": value for name, value in settings.items() if not name.startswith("_")}


def check_monitors(cfg: DictConfig) -> None:
    """Raise UserError if a callback monitors a metric that training does not log."""
    known = logged_metrics()
    for name in ("best", "last", "early_stopping"):
        key = f"callbacks.{name}.monitor"
        monitor = value_of(cfg, key)
        if monitor is not None and monitor not in known:
            near = did_you_mean(str(monitor), known)
            raise UserError(f"{key}={escaped(str(monitor))}: no such metric{near}; choose one of {', '.join(known)}")


def build_optimizer(cfg: DictConfig) -> tuple[MakeOptimizer, MakeScheduler]:
    """Build the factories of optimizer and scheduler, and try one step of each.

    Raises:
        UserError: torch refuses their settings.
    """
    optimizer, scheduler = build(cfg.optimizer), build(cfg.scheduler)
    group = "optimizer"
    try:
        trial = optimizer([torch.nn.Parameter(torch.zeros(1))])
        group = "scheduler"
        schedule = scheduler(trial)
        trial.step()
        schedule.step()
    except (ValueError, TypeError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{group}: {cfg[group]['_target_']} refuses its settings: {reason}") from error
    return optimizer, scheduler


def class_weights(setting: Any, labels: NDArray[np.uint8]) -> tuple[float, float] | None:
    """Return the weights of both classes in the loss.

    Raises:
        UserError: the setting is not two positive numbers.
    """
    if setting is None:
        return None
    if setting == "balanced":
        shares = np.bincount(labels, minlength=2) / len(labels)
        return float(0.5 / shares[0]), float(0.5 / shares[1])
    weights = OmegaConf.to_container(setting) if OmegaConf.is_config(setting) else setting
    if not (
        isinstance(weights, list) and len(weights) == 2 and all(isinstance(w, int | float) and w > 0 for w in weights)
    ):
        raise UserError(f"class_weights={weights}: give null, balanced, or two numbers above 0: '[OTHERS,VIRUS]'")
    return float(weights[0]), float(weights[1])


def usable_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint of an earlier start, the best one if the last was removed, None if there is none.

    Raises:
        DamagedWeightsError: a checkpoint is damaged.
    """
    found = [path for path in (folder / "last.ckpt", folder / "best.ckpt") if path.is_file()]
    for path in found:
        if not _is_sound(path):
            others = f", or remove it to continue from {found[1].name}" if path != found[-1] else ""
            raise DamagedWeightsError(f"{path}: damaged; give overwrite=true to start over{others}")
    return found[0] if found else None


def _is_sound(path: Path) -> bool:
    """Return whether a checkpoint is readable and matches its CRC-32 checksums, which torch does not compare."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return False
        with utf8_name(path) as name:
            torch.load(name, map_location="cpu", weights_only=True, mmap=True)
    except (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError):
        return False
    return True
