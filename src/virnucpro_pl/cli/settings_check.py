"""Checks of a composed configuration, made before torch is imported and reported in one line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl.cli.setting_rules import rules_of
from virnucpro_pl.configuration.hydra_config import CONF, job_folder, typed_settings, value_of
from virnucpro_pl.configuration.settings import Setting, settings_of
from virnucpro_pl.configuration.text_settings import is_text, takes_list, written
from virnucpro_pl.errors import UserError, did_you_mean, escaped
from virnucpro_pl.files.output_files import WORK_FOLDER

_PARTS = ("callbacks", "logger")
"""Groups to which users may add parts, each with a ``_target_``"""


_REQUIRED_PARTS = {"train": ("callbacks.best", "callbacks.last")}


def check_settings(cfg: DictConfig, command: str) -> None:
    """Check the values of settings, and that the command reads every setting given.

    Raises:
        UserError: a setting is wrong, missing or unknown.
    """
    check_values(cfg, command)
    for key in sorted(key for key in OmegaConf.missing_keys(cfg) if not key.startswith("paths.")):
        raise UserError(f"{key}: not given; `{command} {key}=…`")
    _refuse_program_settings(cfg)
    folders = [
        Path(source.path)
        for source in HydraConfig.get().runtime.config_sources
        if source.provider not in ("hydra", "main", "schema")
    ]
    for file in (folder / f"{command}.yaml" for folder in folders):
        if file.is_file():
            raise UserError(
                f"{escaped(str(file))} is not read, as `{command}` has a configuration of this name; move it to"
                f" {escaped(str(file.with_name('experiment') / 'NAME.yaml'))} and give experiment=NAME"
            )
    if folders or any(override.startswith("+") for override in typed_settings()):  # Hydra refuses other unknown keys
        _refuse_unknown_keys(cfg, command)


def check_values(cfg: DictConfig, command: str) -> None:
    """Check that values, from the command line or from Python, have the right type and are within their limits.

    Raises:
        UserError: a value is wrong.
    """
    settings = settings_of(command)
    for setting in settings:
        _refuse_value_of_group(cfg, setting)
    for group in _PARTS:
        for name, part in (cfg.get(group) or {}).items():
            if part is not None and "_target_" not in (part if OmegaConf.is_dict(part) else ()):
                raise UserError(
                    f"{group}.{name}={escaped(str(part))}: give a class, {group}.{name}._target_=MODULE.CLASS"
                )
    for setting in settings:
        value = value_of(cfg, setting.key)
        if isinstance(value, list | dict) and is_text(setting.key) and not takes_list(setting.key):
            raise UserError(f"{setting.key}={_shown(value)}: give one text, not several")
    for key, rule in rules_of(command):
        parent, _, name = key.rpartition(".")
        siblings = value_of(cfg, parent) if parent else cfg
        if OmegaConf.is_dict(siblings) and name in siblings:  # other choices have other settings
            rule.check(key, value_of(cfg, key))
    for key in _REQUIRED_PARTS.get(command, ()):
        if value_of(cfg, key) is None:
            raise UserError(f"{key}=null: {command} reads these checkpoints; leave them on")


def _refuse_value_of_group(cfg: DictConfig, setting: Setting) -> None:
    """Refuse a value for the group of a setting, such as ``split=FOLDER`` of ``train``."""
    group, _, _ = setting.key.rpartition(".")
    value = value_of(cfg, group) if group else None
    is_required = (CONF / group).is_dir() and group not in _PARTS
    if group and not OmegaConf.is_dict(value) and (value is not None or (is_required and group in cfg)):
        raise UserError(f"{group}={_shown(value)}: a group of settings; give one in it, such as {setting.key}=…")


def _refuse_program_settings(cfg: DictConfig) -> None:
    """Refuse to change settings by which parts of the program find each other's files.

    The work folder is removed at the end and checkpoints are replaced, so both must lie in the checked output folder.
    """
    folder = value_of(cfg, "paths.output_dir")
    values = {
        "paths.output_dir": job_folder(value_of(cfg, "output"), value_of(cfg, "paths.default_output")),
        "paths.work_dir": f"{folder}/{WORK_FOLDER}",
        "callbacks.best.dirpath": f"{folder}/checkpoints",
        "callbacks.last.dirpath": f"{folder}/checkpoints",
        "callbacks.best.filename": "best",
        "callbacks.last.filename": "last",
        "logger.csv.save_dir": folder,
        "logger.tensorboard.save_dir": folder,
        **{f"callbacks.{name}.folder": f"{folder}/{WORK_FOLDER}" for name in ("ranks", "run_history")},
        "callbacks.part_writer.folder": f"{folder}/{WORK_FOLDER}/parts",
        **{f"callbacks.{name}.folder": f"{folder}/{WORK_FOLDER}/figures" for name in ("throughput", "stage_timer")},
        "data.input": value_of(cfg, "input"),
    }
    typed = {one.lstrip("+").partition("=")[0] for one in typed_settings()}
    for key, value in values.items():
        if key in typed or value_of(cfg, key) not in (None, value):
            use = "input" if key == "data.input" else "output"
            raise UserError(f"{_typed(key)}: the program sets it itself; give {use}=…")


def _refuse_unknown_keys(cfg: DictConfig, command: str) -> None:
    """Refuse keys that the shipped configuration lacks; the arguments of a ``_target_`` are checked by ``build``."""
    choices = HydraConfig.get().runtime.choices.items()
    shipped = [f"{group}={name}" for group, name in choices if name and (CONF / group / f"{name}.yaml").is_file()]
    known = set(_leaves(OmegaConf.to_container(compose(command, shipped))))
    for key in _leaves(OmegaConf.to_container(cfg)):
        if key not in known and key.partition(".")[0] not in _PARTS:
            raise UserError(f"{_typed(key)}: {command} has no such setting{did_you_mean(key, known)}")


def _leaves(node: Any, key: str = "") -> Iterator[str]:
    """Yield the keys of all leaves; a node with a ``_target_`` is a leaf."""
    if not isinstance(node, dict) or "_target_" in node:
        yield key
    else:
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))


def _typed(key: str) -> str:
    """Return a setting as typed, or its key if it comes from a file."""
    return escaped(next((one for one in typed_settings() if one.lstrip("+").partition("=")[0] == key), key))


def _shown(value: Any) -> str:
    return escaped(written(value))
