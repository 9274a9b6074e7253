"""Explanations of command lines that Hydra refuses."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from virnucpro_pl.configuration.hydra_config import CONF
from virnucpro_pl.configuration.settings import settings_of
from virnucpro_pl.configuration.text_settings import as_typed
from virnucpro_pl.errors import did_you_mean, escaped

HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError, OSError, yaml.YAMLError)
_EXTRAS = {
    "hydra/sweeper": "optuna comes with pip install 'virnucpro-pl[sweep]'",
    "hydra/launcher": "submitit_slurm comes with pip install 'virnucpro-pl[slurm]'",
}


def explain_refusal(error: BaseException, command: str, overrides: Sequence[str]) -> str:
    """Explain in one line why Hydra refused the overrides of a command.

    Composes the configuration with one override after another to find the wrong one.
    """
    is_sweep = not {"-m", "--multirun"}.isdisjoint(overrides)
    sources = [override for override in overrides if override.startswith("hydra.searchpath=")]
    choices = [override for override in overrides if _group_folder(override)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for override in overrides:
            if override.startswith("-") or override in sources:
                continue
            first = override.partition(",")[0] if is_sweep else override
            context = [choice for choice in choices if choice != override and _composes(command, [*sources, choice])]
            if not _composes(command, [*sources, *context, first]):
                return _explain_override(override, command, is_sweep)
    cause = error if str(error).strip() else error.__cause__ or error
    first_line = str(cause).strip().partition("\n")[0]  # Hydra's advice on its own syntax follows
    return f"configuration: {escaped(first_line.rstrip('.'))}"


def _composes(command: str, overrides: list[str]) -> bool:
    try:
        compose(command, overrides)
    except HYDRA_ERRORS:
        return False
    return True


def _explain_override(override: str, command: str, is_sweep: bool) -> str:
    """Return what is wrong with an override that does not compose."""
    typed = escaped(as_typed(override))
    key, _, value = override.lstrip("+~").partition("=")
    if group := _group_folder(override):
        choices = sorted(file.stem for file in group.glob("*.yaml"))
        if wrong := [name for name in value.split(",") if name not in choices]:
            return f"{typed}: no such choice{did_you_mean(wrong[0], choices)}; {key} is one of {', '.join(choices)}"
    if key in _EXTRAS:
        return f"{typed}: no such plugin; {_EXTRAS[key]}"
    names = {setting.key for setting in settings_of(command)}
    names |= {folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra"}
    if override.startswith("+") and key in names:
        return f"{typed}: there is such a setting already; leave out the +"
    if not any(key == name or name.startswith(f"{key}.") for name in names):
        return f"{typed}: {command} has no such setting{did_you_mean(key, names)}; `{command} --help` lists them"
    if "," in value and not is_sweep:
        return (
            f"{typed}: several values make a sweep, which needs -m; a list is written {escaped(key)}=[{escaped(value)}]"
        )
    return f"{typed}: cannot be read; put a value with blanks or signs in it into quotes: \"{escaped(key)}='VALUE'\""


def _group_folder(override: str) -> Path | None:
    """Return the folder of the configuration group that an override chooses from, None for other settings."""
    key, equals, _ = override.lstrip("+~").partition("=")
    folder = CONF / key.partition("@")[0]
    return folder if equals and "." not in key and not key.startswith("hydra") and folder.is_dir() else None
