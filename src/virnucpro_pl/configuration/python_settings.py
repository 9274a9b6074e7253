"""Settings of ``predict`` that are given as Python objects."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from virnucpro_pl.configuration.hydra_config import CONF
from virnucpro_pl.configuration.settings import settings_of
from virnucpro_pl.configuration.text_settings import is_text, single, takes_list
from virnucpro_pl.errors import UserError, did_you_mean, escaped

_USED = ("model.", "model/", "data.", "results.", "trainer.accelerator", "trainer.precision", "trainer.devices")
_USED_WHOLE = ("trainer.num_nodes", "offline", "data", "results", "trainer")
_UNUSED = ("data.input", "data.embedding_cache", "data.store_dir", "data.store_per_node")


def check_python_settings(settings: object) -> None:
    """Refuse settings that are no mapping, that there are not, or that only the command line uses.

    Args:
        settings: values by key.

    Raises:
        UserError: the message names the key.
    """
    if not isinstance(settings, Mapping):
        raise UserError(
            f"settings is a {type(settings).__name__}; give a mapping of names to values, such as"
            " {'results.threshold': 0.6}"
        )
    known = {setting.key for setting in settings_of("predict")}
    for key in settings:
        if not isinstance(key, str):
            raise UserError(f"settings: the name {key!r} is a {type(key).__name__}; give text, such as 'data.chunking'")
        if not re.fullmatch(r"[\w./@]+", key):
            raise UserError(f"settings: {escaped(key)}: predict has no such setting{did_you_mean(key, known)}")
        is_used = key.startswith(_USED) or key in _USED_WHOLE
        if is_used and key not in _UNUSED:
            continue
        if key == "model":
            raise UserError("settings: model is an argument of its own; give model=NAME beside settings")
        group = key.partition(".")[0]
        if key in known or any(one.startswith(f"{group}.") for one in known) or group == "paths":
            raise UserError(f"settings: {escaped(key)} has no effect in Python; leave it out, or use the command line")
        raise UserError(f"settings: {escaped(key)}: predict has no such setting{did_you_mean(key, known)}")


def as_override(key: str, value: Any) -> str:
    """Write a setting so that Hydra reads its value as it is.

    Raises:
        UserError: the value is of a type that no setting has.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | Path) and str(value):
        return single(key, str(value))
    if value == "":
        value = None
    if value is not None and is_text(key) and not takes_list(key):
        raise UserError(f"settings: {escaped(key)}={escaped(repr(value))[:60]}: give text")
    if isinstance(value, bool) or value is None:
        return f"{key}={ {True: 'true', False: 'false', None: 'null'}[value] }"
    if isinstance(value, int | float | list | tuple | dict):
        return f"{key}={list(value) if isinstance(value, tuple) else value}"
    raise UserError(f"settings: {escaped(key)} is a {type(value).__name__}; give text, a number, True, False or None")
