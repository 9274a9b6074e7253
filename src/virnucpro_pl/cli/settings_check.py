"""Mistakes in settings, found before anything heavy is imported and reported in one line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from virnucpro_pl.cli.setting_limits import LARGEST, check_limits
from virnucpro_pl.configuration.hydra_config import CONF, job_folder, typed_settings, value_of
from virnucpro_pl.configuration.settings import settings_of
from virnucpro_pl.configuration.text_settings import is_text, shown, takes_list
from virnucpro_pl.errors import UserError, did_you_mean, escaped
from virnucpro_pl.files.output_files import WORK_FOLDER


class _Kind(NamedTuple):
    """What the value of a setting must be."""

    name: str
    types: tuple[type, ...]
    words: tuple[str | None, ...] = ()
    """Words that are allowed as well"""


_FLAG = _Kind("true or false", (bool,))
_WHOLE = _Kind("a whole number", (int,))
_NUMBER = _Kind("a number", (int, float))
_OPTIONAL_WHOLE = _Kind("a whole number, or null", (int,), (None,))
_OPTIONAL_NUMBER = _Kind("a number, or null", (int, float), (None,))
_KINDS = {
    "threads": _Kind("a whole number above 0, or null for all cores", (int,), (None,)),
    "data.token_budget": _Kind("a whole number of tokens (16384 is usual), auto or null", (int,), ("auto", None)),
    "data.chunk_length": _Kind("a whole number of bases", (int,)),
    "data.max_per_genome": _OPTIONAL_WHOLE,
    "data.max_per_group": _OPTIONAL_WHOLE,
    "results.threshold": _OPTIONAL_NUMBER,
    "threshold.value": _OPTIONAL_NUMBER,
    "threshold.precision": _OPTIONAL_NUMBER,
    "threshold.false_positive_rate": _OPTIONAL_NUMBER,
    "min_agreement": _OPTIONAL_NUMBER,
    "min_clear_agreement": _OPTIONAL_NUMBER,
    "mismatch_limit": _Kind("a whole number of rows, or null for all", (int,), (None,)),
    "reads": _OPTIONAL_WHOLE,
    "trainer.max_epochs": _WHOLE,
    "trainer.num_nodes": _WHOLE,
    "trainer.accumulate_grad_batches": _WHOLE,
}
"""Of settings whose default does not show it"""
_OWN_CHECKS = ("trainer", "files", "patience", "paths", "connections")
"""Groups whose values are checked where they are used"""
_EXTRAS = {
    "hydra/sweeper": "optuna comes with pip install 'virnucpro-pl[sweep]'",
    "hydra/launcher": "submitit_slurm comes with pip install 'virnucpro-pl[slurm]'",
}
_PARTS = ("callbacks", "logger")
"""Where users may add parts of their own, each with a ``_target_``"""


def check_settings(cfg: DictConfig, command: str) -> None:
    """Refuse settings that nothing reads, and values of the wrong kind.

    Args:
        cfg: the composed configuration.
        command: the command it is for.

    Raises:
        UserError: the message gives the key, the value, and what to give instead.
    """
    check_values(cfg, command)
    for key in sorted(key for key in OmegaConf.missing_keys(cfg) if not key.startswith("paths.")):
        raise UserError(f"{key}: not given; `{command} {key}=…`")
    _refuse_own_settings(cfg)
    _refuse_unread_files(command)
    if _may_hold_unread_keys():
        _refuse_unread_keys(cfg, command)


def check_values(cfg: DictConfig, command: str) -> None:
    """Refuse values of the wrong kind, numbers out of their limits, and values in the place of a group.

    Args:
        cfg: the composed configuration, from the command line or from Python.
        command: the command it is for.

    Raises:
        UserError: the message gives the key, the value, and what to give instead.
    """
    _refuse_values_of_groups(cfg, command)
    for group in _PARTS:
        for name, part in (cfg.get(group) or {}).items():
            if part is not None and "_target_" not in (part if OmegaConf.is_dict(part) else ()):
                raise UserError(
                    f"{group}.{name}={escaped(str(part))}: give a class, {group}.{name}._target_=MODULE.CLASS"
                )
    for setting in settings_of(command):
        value = value_of(cfg, setting.key)
        if isinstance(value, list | dict) and is_text(setting.key) and not takes_list(setting.key):
            raise UserError(f"{setting.key}={_written(value)}: give one text, not several")
    for key, kind in _kinds(command):
        parent, _, name = key.rpartition(".")
        if name not in ((value_of(cfg, parent) if parent else cfg) or ()):
            continue  # of another choice than the default one
        if (command, key) == ("prepare", "data.chunk_length"):
            continue  # a range as well, which the command reads
        value = value_of(cfg, key)
        is_right = isinstance(value, kind.types) and (kind is _FLAG or not isinstance(value, bool))
        if not is_right and value not in kind.words:
            raise UserError(f"{key}={_written(value)}: give {kind.name}")
        if isinstance(value, int) and value > LARGEST:
            raise UserError(f"{key}={_written(value)}: too large; give {kind.name}, {LARGEST} at most")
    check_limits(cfg, command, _written)


def _refuse_values_of_groups(cfg: DictConfig, command: str) -> None:
    """Refuse a value in the place of a group of settings, such as ``split=FOLDER`` of ``train``."""
    for setting in settings_of(command):
        group, _, _ = setting.key.rpartition(".")
        value = value_of(cfg, group) if group else None
        is_needed = (CONF / group).is_dir() and group not in _PARTS
        if group and not OmegaConf.is_dict(value) and (value is not None or (is_needed and group in cfg)):
            raise UserError(f"{group}={_written(value)}: a group of settings; give one in it, such as {setting.key}=…")


def _refuse_unread_files(command: str) -> None:
    """Refuse a file of the user that has the name of a command's own configuration, which is read in its place."""
    for source in HydraConfig.get().runtime.config_sources:
        file = Path(source.path) / f"{command}.yaml"
        if source.provider not in ("hydra", "main", "schema") and file.is_file():
            raise UserError(
                f"{escaped(str(file))} is not read, as `{command}` has a configuration of this name; move it to"
                f" {escaped(str(file.with_name('experiment') / 'NAME.yaml'))} and give experiment=NAME"
            )


def _refuse_own_settings(cfg: DictConfig) -> None:
    """Refuse other values of the settings by which parts of the program find one another's files.

    A work folder is removed at the end, and checkpoints are replaced, so they lie where the output folder was checked.
    """
    folder = value_of(cfg, "paths.output_dir")
    own = {
        "paths.output_dir": job_folder(value_of(cfg, "output"), value_of(cfg, "paths.default_output")),
        "paths.work_dir": f"{folder}/{WORK_FOLDER}",
        "callbacks.best.dirpath": f"{folder}/checkpoints",
        "callbacks.last.dirpath": f"{folder}/checkpoints",
        "callbacks.best.filename": "best",
        "callbacks.last.filename": "last",
        "logger.csv.save_dir": folder,
        "logger.tensorboard.save_dir": folder,
        **{f"callbacks.{name}.folder": f"{folder}/{WORK_FOLDER}" for name in ("ranks", "run_history")},
        **{f"callbacks.{name}.folder": f"{folder}/{WORK_FOLDER}/figures" for name in ("throughput", "stage_timer")},
        "data.input": value_of(cfg, "input"),
    }
    typed = {one.lstrip("+").partition("=")[0] for one in typed_settings()}
    for key, value in own.items():
        if key in typed or value_of(cfg, key) not in (None, value):
            use = "input" if key == "data.input" else "output"
            raise UserError(f"{_typed(key)}: the program sets it itself; give {use}=…")


def _written(value: Any) -> str:
    """Write a value as on the command line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return escaped(str(value))


def _kinds(command: str) -> Iterator[tuple[str, _Kind]]:
    """Yield the settings of a command whose kind is known, by name or by the type of their default."""
    for setting in settings_of(command):
        if setting.key in _KINDS:
            kind = _KINDS[setting.key]
            yield setting.key, kind._replace(words=(*kind.words, None)) if setting.default == "null" else kind
        elif setting.key.partition(".")[0] not in _OWN_CHECKS and "${" not in setting.default:
            match yaml.safe_load(setting.default):
                case bool():
                    yield setting.key, _FLAG
                case int() if not setting.key.endswith("seconds"):
                    yield setting.key, _WHOLE
                case int():
                    yield setting.key, _NUMBER
                case float():
                    yield setting.key, _NUMBER


def _may_hold_unread_keys() -> bool:
    """Return whether keys were added with ``+`` or by files of the user; Hydra itself refuses others."""
    hydra = HydraConfig.get()
    added = any(override.startswith("+") for override in typed_settings())
    return added or any(source.provider not in ("hydra", "main", "schema") for source in hydra.runtime.config_sources)


def _refuse_unread_keys(cfg: DictConfig, command: str) -> None:
    """Compare the keys with those there are without additions; the arguments of a ``_target_`` are checked by it."""
    choices = HydraConfig.get().runtime.choices.items()
    ours = [f"{group}={name}" for group, name in choices if name and (CONF / group / f"{name}.yaml").is_file()]
    known = set(_keys(compose(command, ours)))
    for key in _keys(cfg):
        if key not in known and key.partition(".")[0] not in _PARTS:
            raise UserError(f"{_typed(key)}: {command} has no such setting{did_you_mean(key, known)}")


def _keys(cfg: DictConfig) -> Iterator[str]:
    """Yield the keys of all leaves but those below a ``_target_``."""

    def leaves(node: Any, key: str) -> Iterator[str]:
        if not isinstance(node, dict) or "_target_" in node:
            yield key
        else:
            for name, value in node.items():
                yield from leaves(value, f"{key}.{name}" if key else str(name))

    return leaves(OmegaConf.to_container(cfg), "")


def _typed(key: str) -> str:
    """Return a setting as it was typed, the key alone if it comes from a file."""
    typed = (one for one in typed_settings() if one.lstrip("+").partition("=")[0] == key)
    return escaped(next(typed, key))


def explain_refusal(error: BaseException, command: str, overrides: Sequence[str]) -> str:
    """Say in one line why Hydra refused the overrides of a command.

    Args:
        error: what Hydra raised.
        command: the command.
        overrides: what Hydra was given, its own flags included.
    """
    is_sweep = not {"-m", "--multirun"}.isdisjoint(overrides)
    sources = [one for one in overrides if one.startswith("hydra.searchpath=")]
    choices = [one for one in overrides if _group(one)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for override in overrides:
            if override.startswith("-") or override in sources:
                continue
            one = override.partition(",")[0] if is_sweep else override
            context = [choice for choice in choices if choice != override and _composes(command, [*sources, choice])]
            if not _composes(command, [*sources, *context, one]):
                return _explain_one(override, command, is_sweep)
    return f"configuration: {_first_line(error)}"


def _composes(command: str, overrides: list[str]) -> bool:
    try:
        compose(command, overrides)
    except (HydraException, OmegaConfBaseException, ValueError, OSError, yaml.YAMLError):
        return False
    return True


def _explain_one(override: str, command: str, is_sweep: bool) -> str:
    """Say what is wrong with an override that does not compose."""
    typed = escaped(shown(override))
    key, _, value = override.lstrip("+~").partition("=")
    if group := _group(override):
        options = sorted(file.stem for file in group.glob("*.yaml"))
        if wrong := [name for name in value.split(",") if name not in options]:
            return f"{typed}: no such choice{did_you_mean(wrong[0], options)}; {key} is one of {', '.join(options)}"
    if key in _EXTRAS:
        return f"{typed}: no such plugin; {_EXTRAS[key]}"
    names = _names(command)
    if override.startswith("+") and key in names:
        return f"{typed}: there is such a setting already; leave out the +"
    if not any(key == name or name.startswith(f"{key}.") for name in names):
        return f"{typed}: {command} has no such setting{did_you_mean(key, names)}; `{command} --help` lists them"
    if "," in value and not is_sweep:
        return (
            f"{typed}: several values make a sweep, which needs -m; a list is written {escaped(key)}=[{escaped(value)}]"
        )
    return f"{typed}: cannot be read; put a value with blanks or signs in it into quotes: \"{escaped(key)}='VALUE'\""


def _group(override: str) -> Path | None:
    """Return the folder of the group that an override chooses from, None if it is a plain setting."""
    key, equals, _ = override.lstrip("+~").partition("=")
    folder = CONF / key.partition("@")[0]
    return folder if equals and "." not in key and not key.startswith("hydra") and folder.is_dir() else None


def _names(command: str) -> set[str]:
    """Return the settings and groups of a command."""
    groups = {folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra"}
    return groups | {setting.key for setting in settings_of(command)}


def _first_line(error: BaseException) -> str:
    """Return the first line of an error of Hydra or OmegaConf, which advise on their own syntax after it."""
    cause = error if str(error).strip() else error.__cause__ or error
    return escaped(str(cause).strip().partition("\n")[0].rstrip("."))
