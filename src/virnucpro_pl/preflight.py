"""Files that a command reads, looked for before torch is imported."""

import os
from pathlib import Path

from omegaconf import DictConfig

from virnucpro_pl.configuration import value_of
from virnucpro_pl.errors import UserError, escaped

_PATHS = {
    "prepare": ("input",),
    "train": ("input", "embeddings"),
    "test": ("input", "embeddings"),
    "compare": ("reference", "candidate"),
}
_WEIGHTS = ("model.dna_encoder.weights", "model.protein_encoder.weights", "model.head.weights", "model.fallback_head")


def check_inputs(cfg: DictConfig, command: str) -> None:
    """Refuse inputs and weights that are not there.

    Args:
        cfg: the configuration of the command.
        command: the command.

    Raises:
        UserError: one is missing, or its setting.
    """
    if command in ("predict", "embed"):
        from virnucpro_pl.sequence.records import resolve_inputs

        given = _given(cfg, "input", command)
        if not (len(given) == 1 and (Path(given[0]) / "manifest.json").is_file()):
            resolve_inputs(given)
    for key in _PATHS.get(command, ()):
        for name in _given(cfg, key, command):
            if not os.path.exists(name):
                raise UserError(
                    f"{key}={escaped(name)} does not exist; check the path (relative paths start at {Path.cwd()})"
                )
    for key in _WEIGHTS:
        name = value_of(cfg, key)
        if isinstance(name, str) and name.startswith(("/", "./", "../")) and not os.path.exists(name):
            raise UserError(f"{key}={escaped(name)} does not exist; check the path")


def _given(cfg: DictConfig, key: str, command: str) -> list[str]:
    """Return the names given as a setting."""
    value = value_of(cfg, key)
    if value is None:
        if key == "embeddings":
            return []
        raise UserError(f"{key}: not given; `{command} {key}=PATH`")
    return [str(name) for name in value] if isinstance(value, list) else [str(value)]
