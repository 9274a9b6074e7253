"""Checks of the files that a command reads, made before torch is imported."""

import json
import os
from pathlib import Path

from omegaconf import DictConfig

from virnucpro_pl.configuration.hydra_config import PACKAGE, typed_settings, value_of
from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.file_kinds import unexpected_kind
from virnucpro_pl.files.output_files import INFO_FILE
from virnucpro_pl.host.standard_streams import stdin_may_hold_data

_PATHS = {
    "prepare": ("input",),
    "train": ("input", "embeddings"),
    "test": ("input", "embeddings"),
    "compare": ("reference", "candidate"),
}
_WEIGHTS = ("model.dna_encoder.weights", "model.protein_encoder.weights", "model.head.weights", "model.fallback_head")
_UNUSED_WEIGHTS = {"dna": "model.protein_encoder.weights", "protein": "model.dna_encoder.weights"}
"""Weights that a modality does not use"""


def check_inputs(cfg: DictConfig, command: str) -> None:
    """Check that the inputs and weights of a command exist.

    Raises:
        UserError: a file is missing, or not given.
    """
    if command == "predict" and uses_sample(cfg) and stdin_may_hold_data():
        raise UserError(
            "input: not given, and standard input is a pipe or a file; `predict -i -` reads it, `predict </dev/null`"
            " scores the packaged sample"
        )
    if command in ("predict", "embed"):
        from virnucpro_pl.sequence.records import resolve_inputs

        names = _names(cfg, "input", command)
        if not (len(names) == 1 and os.path.exists(f"{names[0]}/manifest.json")):  # a dataset
            resolve_inputs(names)
    if command in ("prepare", "train") and isinstance(value_of(cfg, "input"), list):
        raise UserError(f"input: {command} takes one, and several were given")
    for key in _PATHS.get(command, ()):
        for name in _names(cfg, key, command):
            if not os.path.exists(name):
                raise UserError(
                    f"{key}={escaped(name)} does not exist; check the path (relative paths start at {Path.cwd()})"
                )
    if command == "prepare":
        _check_apart(cfg)
    _check_folders(cfg)
    unused = _UNUSED_WEIGHTS.get(_modality(cfg))
    for key in _WEIGHTS:
        name = value_of(cfg, key)
        is_path = isinstance(name, str) and name.startswith(("/", "./", "../"))
        if is_path and key != unused and not os.path.exists(name):
            raise UserError(f"{key}={escaped(name)}: no such file or folder; check the path")


def uses_sample(cfg: DictConfig) -> bool:
    """Return whether the packaged sample is scored because no input was given."""
    is_typed = any(setting.lstrip("+").startswith("input=") for setting in typed_settings())
    return not is_typed and value_of(cfg, "input") == str(PACKAGE / "demo" / "sample.fasta.gz")


def _check_folders(cfg: DictConfig) -> None:
    """Refuse a file in place of a folder, or on the path to it."""
    for key in ("data.store_dir", "data.embedding_cache"):
        folder = str(value_of(cfg, key) or "")
        if not folder or folder.startswith(f"{value_of(cfg, 'paths.work_dir')}/"):  # checked as part of output
            continue
        for path in (Path(folder), *Path(folder).parents):
            if kind := unexpected_kind(path, is_folder=True):
                raise UserError(f"{key}={escaped(folder)}: {escaped(str(path))} is {kind}; name a folder")


def _check_apart(cfg: DictConfig) -> None:
    """Refuse a dataset in the folder of the genomes, and genomes in the folder of the dataset, which is emptied."""
    source, output = Path(cfg.input).resolve(), Path(cfg.paths.output_dir).resolve()
    if source.is_relative_to(output) or (source.is_dir() and output.is_relative_to(source)):
        raise UserError(
            f"output={escaped(str(cfg.paths.output_dir))}: a dataset and the genomes of input={escaped(cfg.input)} need"
            " folders of their own"
        )


def _modality(cfg: DictConfig) -> str:
    """Return the modality of the model: ``dna``, ``protein`` or ``both``."""
    modality, head = value_of(cfg, "model.inputs"), value_of(cfg, "model.head.weights")
    if modality or not isinstance(head, str):
        return str(modality or "both")
    try:
        return str(json.loads(Path(head).with_name(INFO_FILE).read_text(encoding="utf-8"))["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return "both"


def _names(cfg: DictConfig, key: str, command: str) -> list[str]:
    """Return the names that a setting gives; only ``embeddings`` may be null."""
    value = value_of(cfg, key)
    if value is None:
        if key == "embeddings":
            return []
        raise UserError(f"{key}: not given; `{command} {key}=PATH`")
    return [str(name) for name in value] if isinstance(value, list) else [str(value)]
