"""Rules for the values of settings: types, limits and advice."""

import re
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, NamedTuple

import yaml
from omegaconf import DictConfig

from virnucpro_pl.configuration.settings import Setting, settings_of
from virnucpro_pl.configuration.text_settings import written
from virnucpro_pl.errors import UserError, escaped

_LARGEST = 10**12
"""Larger than any useful value, and small enough for the libraries"""


class _Rule(NamedTuple):
    """Condition on the value of a setting.

    ``types`` are the allowed types; if empty, only the limits of numbers are checked. ``is_allowed`` gives the limits
    of a number and is false for NaN, as comparisons are. ``words`` are further allowed values.
    """

    types: tuple[type, ...]
    advice: str
    is_allowed: Callable[[Any], bool] = lambda x: True
    words: tuple[str | None, ...] = ()

    def check(self, key: str, value: Any) -> None:
        """Raise ``UserError`` if a value breaks the rule."""
        types = self.types or (int, float)
        is_stray_flag = isinstance(value, bool) and self.types not in (_ANY, (bool,))
        has_type: bool = isinstance(value, types) and not is_stray_flag
        if has_type:
            if not self.is_allowed(value):
                raise UserError(f"{key}={escaped(written(value))}: give {self.advice}")
            if isinstance(value, int) and value > _LARGEST:
                raise UserError(f"{key}={value}: too large; give {self.advice}, {_LARGEST} at most")
        elif self.types and value not in self.words:
            raise UserError(f"{key}={escaped(written(value))}: give {self.advice}")


def _matches(pattern: str) -> Callable[[Any], bool]:
    """Return a condition on the text of a value; a mapping is an object of the user."""
    return lambda x: isinstance(x, DictConfig) or re.fullmatch(pattern, str(x)) is not None


def _is_devices(x: Any) -> bool:
    if isinstance(x, list):
        return bool(x) and all(type(number) is int and number >= 0 for number in x)
    return re.fullmatch(r"auto|-1|[1-9]\d{0,3}|\d+(,\d*)+", str(x)) is not None


_INT, _REAL, _ANY = (int,), (int, float), ()
_FLAG = _Rule((bool,), "true or false")
_WHOLE = _Rule(_INT, "a whole number")
_NUMBER = _Rule(_REAL, "a number")
_OPTIONAL_WHOLE = _Rule(_INT, "a whole number, or null", words=(None,))
_OPTIONAL_NUMBER = _Rule(_REAL, "a number, or null", words=(None,))
_ABOVE_ZERO = _Rule(_REAL, "a number above 0", lambda x: 0 < x < inf)
_NOT_NEGATIVE = _Rule(_REAL, "a number, 0 or more", lambda x: 0 <= x < inf)
_COUNT = _Rule(_INT, "a whole number, 0 or more", lambda x: x >= 0)
_ONE_OR_MORE = _Rule(_INT, "a whole number above 0", lambda x: x >= 1)
_LIMIT = _Rule(_INT, "a whole number above 0, or -1 for no limit", lambda x: x >= 1 or x == -1)
_SHARE = _Rule(_REAL, "a share from 0 to below 1", lambda x: 0 <= x < 1)
_NEEDS_LOSS = "early stopping and the best weights need a validation loss"
_RULES: dict[str, _Rule] = {
    "threads": _Rule(_INT, "a whole number from 1 to 4096, or null for all cores", lambda x: 1 <= x <= 4096, (None,)),
    "seed": _Rule(_INT, "a whole number from 0 to 4294967295", lambda x: 0 <= x < 2**32),
    "reads": _OPTIONAL_WHOLE,
    "min_agreement": _OPTIONAL_NUMBER,
    "min_clear_agreement": _OPTIONAL_NUMBER,
    "mismatch_limit": _Rule(_INT, "a whole number of rows, or null for all", words=(None,)),
    "batch_size": _Rule(_INT, "2 or more, as batch normalisation needs; 32 is the published size", lambda x: x >= 2),
    "resamples": _COUNT,
    "data.token_budget": _Rule(_INT, "a whole number of tokens (16384 is usual), auto or null", words=("auto", None)),
    "data.chunk_length": _Rule(_INT, "a whole number of bases"),
    "data.max_per_genome": _OPTIONAL_WHOLE,
    "data.max_per_group": _OPTIONAL_WHOLE,
    "data.num_workers": _Rule(_INT, "a whole number from 0 to 1024", lambda x: 0 <= x <= 1024),
    "data.depth": _Rule(_INT, "a whole number from 1 to 1000000", lambda x: 1 <= x <= 10**6),
    "results.threshold": _OPTIONAL_NUMBER,
    "threshold.value": _OPTIONAL_NUMBER,
    "threshold.precision": _Rule(_REAL, "a share above 0 and up to 1", lambda x: 0 < x <= 1),
    "threshold.false_positive_rate": _SHARE,
    "model.head.hidden_dim": _Rule(_INT, "a whole number from 1 to 1000000", lambda x: 1 <= x <= 10**6),
    "model.head.dropout": _SHARE,
    "optimizer.lr": _ABOVE_ZERO,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.momentum": _SHARE,
    "fine_tuning.lr": _ABOVE_ZERO,
    "scheduler.step_size": _ONE_OR_MORE,
    "scheduler.gamma": _ABOVE_ZERO,
    "scheduler.factor": _Rule(_REAL, "a number above 0 and up to 1", lambda x: 0 < x <= 1),
    "scheduler.T_max": _ONE_OR_MORE,
    "callbacks.early_stopping.patience": _COUNT,
    "trainer.max_epochs": _LIMIT,
    "trainer.accumulate_grad_batches": _ONE_OR_MORE,
    # Lightning takes other types for these as well
    "trainer.max_steps": _LIMIT._replace(types=_ANY),
    "trainer.gradient_clip_val": _NOT_NEGATIVE._replace(types=_ANY),
    "trainer.limit_train_batches": _ABOVE_ZERO._replace(types=_ANY),
    "trainer.limit_val_batches": _Rule(_ANY, f"a number above 0; {_NEEDS_LOSS}", lambda x: 0 < x < inf),
    "trainer.val_check_interval": _ABOVE_ZERO._replace(types=_ANY),
    "trainer.check_val_every_n_epoch": _Rule(_ANY, f"1; {_NEEDS_LOSS} in every epoch", lambda x: x == 1),
    "trainer.limit_predict_batches": _Rule(_ANY, "1, or leave it out; shorten the input instead", lambda x: x == 1),
    "trainer.fast_dev_run": _Rule(_ANY, "false; a run of one batch leaves no results", lambda x: not x),
    "trainer.logger": _Rule(_ANY, "false; metrics are written to run.json and run.log", lambda x: not x),
}
_PRECISION = r"(32|16|bf16|64)(-true)?|(16|bf16)-mixed|transformer-engine(-float16)?|None"
_STRATEGY = r"auto|single_device|model_parallel|(ddp|fsdp|deepspeed)\w*"
for _trainer in ("trainer", "embedding.trainer"):
    _RULES |= {
        f"{_trainer}.precision": _Rule((object,), "32-true, 16-true or bf16-true", _matches(_PRECISION)),
        f"{_trainer}.strategy": _Rule((object,), "auto, ddp or ddp_spawn", _matches(_STRATEGY)),
        f"{_trainer}.devices": _Rule((object,), "a number of devices above 0, or a list of them: [0,2]", _is_devices),
        f"{_trainer}.num_nodes": _Rule(_INT, "a whole number of machines above 0", lambda x: 1 <= x < 10**5),
    }
_OWN_CHECKS = ("trainer", "files", "patience", "paths", "connections")
"""Groups whose other values are checked where they are used"""


def rules_of(command: str) -> Iterator[tuple[str, _Rule]]:
    """Yield the keys and rules of a command's settings, and of keys that other choices add."""
    settings = {setting.key: setting for setting in settings_of(command)}
    for key in {**settings, **_RULES}:
        setting = settings.get(key)
        rule = _RULES.get(key) or (setting and _rule_of_default(setting))
        if rule and not (command == "prepare" and key == "data.chunk_length"):  # may be a range, which prepare checks
            is_optional = setting is not None and setting.default == "null"
            yield key, rule._replace(words=(*rule.words, None)) if is_optional else rule


def _rule_of_default(setting: Setting) -> _Rule | None:
    """Return the rule that the type of a setting's default gives, or None if it is not checked here."""
    if setting.key.partition(".")[0] in _OWN_CHECKS or "${" in setting.default:
        return None
    match yaml.safe_load(setting.default):
        case bool():
            return _FLAG
        case int() if not setting.key.endswith("seconds"):
            return _WHOLE
        case int() | float():
            return _NUMBER
    return None
