"""Settings of ``predict`` given as Python objects."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from virnucpro_pl.configuration.settings import settings_of
from virnucpro_pl.configuration.text_settings import is_text, takes_list, text_override, written
from virnucpro_pl.errors import UserError, did_you_mean, escaped

_USED = re.compile(
    r"model[./].*|(data|results)(\..*)?|trainer(\.(accelerator|precision|devices).*|\.num_nodes)?|offline"
)
_UNUSED = ("data.input", "data.embedding_cache", "data.store_dir", "data.store_per_node")


def check_python_settings(settings: object) -> None:
    """Check that settings map keys, which the Python interface uses, to values.

    Raises:
        UserError: they do not; the message names the key.
    """
    if not isinstance(settings, Mapping):
        raise UserError(
            f"settings is a {type(settings).__name__}; give a mapping of names to values, such as"
            " {'results.threshold': 0.6}"
        )
    known = {setting.key for setting in settings_of("predict")}
    groups = {"paths", *(key.partition(".")[0] for key in known if "." in key)}
    for key in settings:
        if not isinstance(key, str):
            raise UserError(f"settings: the name {key!r} is a {type(key).__name__}; give text, such as 'data.chunking'")
        if key == "model":
            raise UserError("settings: model is an argument of its own; give model=NAME beside settings")
        is_name = re.fullmatch(r"[\w./@]+", key) is not None
        if is_name and _USED.fullmatch(key) and key not in _UNUSED:
            continue
        if is_name and (key in known or key.partition(".")[0] in groups):
            raise UserError(f"settings: {escaped(key)} has no effect in Python; leave it out, or use the command line")
        raise UserError(f"settings: {escaped(key)}: predict has no such setting{did_you_mean(key, known)}")


def as_override(key: str, value: Any) -> str:
    """Return Hydra's override that sets a key to a Python value.

    Raises:
        UserError: no setting takes a value of this type.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | Path) and str(value):
        return text_override(key, str(value))
    if value == "":
        value = None
    if value is not None and is_text(key) and not takes_list(key):
        raise UserError(f"settings: {escaped(key)}={escaped(repr(value))[:60]}: give text")
    if value is None or isinstance(value, int | float | list | tuple | dict):
        return f"{key}={written(list(value) if isinstance(value, tuple) else value)}"
    raise UserError(f"settings: {escaped(key)} is a {type(value).__name__}; give text, a number, True, False or None")
