"""Limits of numeric settings, and parts that a command requires."""

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from omegaconf import DictConfig

from virnucpro_pl.configuration.hydra_config import value_of
from virnucpro_pl.configuration.text_settings import written
from virnucpro_pl.errors import UserError


class _Limit(NamedTuple):
    """Condition on a number, and its description for messages."""

    is_met: Callable[[float], bool]
    """Must be false for NaN, as comparisons are"""
    text: str


_ABOVE_ZERO = _Limit(lambda value: 0 < value < inf, "a number above 0")
_NOT_NEGATIVE = _Limit(lambda value: 0 <= value < inf, "a number, 0 or more")
_ONE_OR_MORE = _Limit(lambda value: value >= 1, "a whole number above 0")
_ONE_OR_MORE_OR_ANY = _Limit(lambda value: value >= 1 or value == -1, "a whole number above 0, or -1 for no limit")
LARGEST = 10**12
"""Larger than any useful value, and small enough for the libraries"""
_LIMITS = {
    "threads": _Limit(lambda value: 1 <= value <= 4096, "a whole number from 1 to 4096, or null for all cores"),
    "data.num_workers": _Limit(lambda value: 0 <= value <= 1024, "a whole number from 0 to 1024"),
    "data.depth": _Limit(lambda value: 1 <= value <= 10**6, "a whole number from 1 to 1000000"),
    "seed": _Limit(lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295"),
    "batch_size": _Limit(lambda value: value >= 2, "2 or more, as batch normalisation needs; 32 is the published size"),
    "resamples": _NOT_NEGATIVE,
    "threshold.precision": _Limit(lambda value: 0 < value <= 1, "a share above 0 and up to 1"),
    "threshold.false_positive_rate": _Limit(lambda value: 0 <= value < 1, "a share from 0 to below 1"),
    "model.head.hidden_dim": _Limit(
        lambda value: 1 <= value <= 10**6, "a whole number from 1 to 1000000; 512 is the published one"
    ),
    "model.head.dropout": _Limit(lambda value: 0 <= value < 1, "a share from 0 to below 1; 0.5 is the published one"),
    "optimizer.lr": _ABOVE_ZERO,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.momentum": _Limit(lambda value: 0 <= value < 1, "a share from 0 to below 1; 0.9 is the published one"),
    "fine_tuning.lr": _ABOVE_ZERO,
    "scheduler.step_size": _ONE_OR_MORE,
    "scheduler.gamma": _ABOVE_ZERO,
    "scheduler.factor": _Limit(lambda value: 0 < value <= 1, "a number above 0 and up to 1"),
    "scheduler.T_max": _ONE_OR_MORE,
    "callbacks.early_stopping.patience": _NOT_NEGATIVE,
    "trainer.max_epochs": _ONE_OR_MORE_OR_ANY,
    "trainer.max_steps": _ONE_OR_MORE_OR_ANY,
    "trainer.accumulate_grad_batches": _ONE_OR_MORE,
    "trainer.gradient_clip_val": _NOT_NEGATIVE,
    "trainer.limit_train_batches": _ABOVE_ZERO,
    "trainer.limit_val_batches": _Limit(
        lambda value: 0 < value < inf, "a number above 0; early stopping and the best weights need a validation loss"
    ),
    "trainer.val_check_interval": _ABOVE_ZERO,
    "trainer.check_val_every_n_epoch": _Limit(
        lambda value: value == 1, "1; early stopping and the best weights need a validation loss in every epoch"
    ),
    "trainer.limit_predict_batches": _Limit(
        lambda value: value == 1, "1, or leave it out; results hold every record, so cut the input instead"
    ),
    "trainer.fast_dev_run": _Limit(lambda value: not value, "false; a run of one batch leaves no results"),
    "trainer.logger": _Limit(lambda value: not value, "false; run.json and run.log hold what is measured"),
}
_REQUIRED = {"train": ("callbacks.best", "callbacks.last")}


def check_limits(cfg: DictConfig, command: str) -> None:
    """Check that numbers are within their limits and that required parts are not switched off.

    Args:
        cfg: the composed configuration, with values of the right type.
        command: the command.

    Raises:
        UserError: a number is outside its limits, or a part is null.
    """
    for key, limit in _LIMITS.items():
        value = value_of(cfg, key)
        if isinstance(value, int | float) and not limit.is_met(value):
            raise UserError(f"{key}={written(value)}: give {limit.text}")
    for key in _REQUIRED.get(command, ()):
        if value_of(cfg, key) is None:
            raise UserError(f"{key}=null: {command} reads these checkpoints; leave them on")
