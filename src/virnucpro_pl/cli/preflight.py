"""Files that a command reads, looked for before torch is imported."""

import json
import os
import re
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

_TRAINER = {
    "precision": (
        r"(32|16|bf16|64)(-true)?|(16|bf16)-mixed|transformer-engine(-float16)?|None",
        "32-true, 16-true or bf16-true",
    ),
    "strategy": (r"auto|single_device|model_parallel|(ddp|fsdp|deepspeed)\w*", "auto, ddp or ddp_spawn"),
    "devices": (r"auto|-1|[1-9]\d{0,3}|\d+(,\d*)+", "a number of devices above 0, or a list of them: [0,2]"),
    "num_nodes": (r"[1-9]\d{0,4}", "a number of machines above 0"),
}
"""Of settings of the trainer: what their values look like, and what to give"""


def check_inputs(cfg: DictConfig, command: str) -> None:
    """Refuse inputs and weights that are not there.

    Args:
        cfg: the configuration of the command.
        command: the command.

    Raises:
        UserError: one is missing, or its setting.
    """
    if command == "predict" and uses_sample(cfg) and stdin_may_hold_data():
        raise UserError(
            "input: not given, and standard input is a pipe or a file; `predict -i -` reads it, `predict </dev/null`"
            " scores the packaged sample"
        )
    if command in ("predict", "embed"):
        from virnucpro_pl.sequence.records import resolve_inputs

        given = _given(cfg, "input", command)
        if not (len(given) == 1 and os.path.exists(f"{given[0]}/manifest.json")):
            resolve_inputs(given)
    if command in ("prepare", "train") and isinstance(value_of(cfg, "input"), list):
        raise UserError(f"input: {command} takes one, and several were given")
    for key in _PATHS.get(command, ()):
        for name in _given(cfg, key, command):
            if not os.path.exists(name):
                raise UserError(
                    f"{key}={escaped(name)} does not exist; check the path (relative paths start at {Path.cwd()})"
                )
    if command == "prepare":
        _check_apart(cfg)
    _check_folders(cfg)
    for part in ("trainer", "embedding.trainer"):
        _check_trainer(cfg, part)
    unused = {"dna": "model.protein_encoder.weights", "protein": "model.dna_encoder.weights"}.get(_inputs_of_head(cfg))
    for key in _WEIGHTS:
        name = value_of(cfg, key)
        is_path = isinstance(name, str) and name.startswith(("/", "./", "../"))
        if is_path and key != unused and not os.path.exists(name):
            raise UserError(f"{key}={escaped(name)}: no such file or folder; check the path")


def uses_sample(cfg: DictConfig) -> bool:
    """Return whether the packaged sample is scored because no input was given."""
    typed = any(setting.lstrip("+").startswith("input=") for setting in typed_settings())
    return not typed and value_of(cfg, "input") == str(PACKAGE / "demo" / "sample.fasta.gz")


def _check_folders(cfg: DictConfig) -> None:
    """Refuse files where settings name folders."""
    for key in ("data.store_dir", "data.embedding_cache"):
        folder = str(value_of(cfg, key) or "")
        if not folder or folder.startswith(f"{value_of(cfg, 'paths.work_dir')}/"):  # else output= is wrong
            continue
        for path in (Path(folder), *Path(folder).parents):
            if kind := unexpected_kind(path, is_folder=True):
                raise UserError(f"{key}={escaped(folder)}: {escaped(str(path))} is {kind}; name a folder")


def _check_trainer(cfg: DictConfig, part: str) -> None:
    """Refuse values that Lightning would refuse only after torch is imported, and not always in one line."""
    given = value_of(cfg, part) or {}
    for key, (pattern, advice) in _TRAINER.items():
        value = value_of(given, key)
        if isinstance(value, list) and key == "devices":
            is_right = bool(value) and all(type(number) is int and number >= 0 for number in value)
        else:
            is_right = isinstance(value, DictConfig) or re.fullmatch(pattern, str(value)) is not None
        if key in given and not is_right:
            raise UserError(f"{part}.{key}={escaped(str(value))}: give {advice}")


def _check_apart(cfg: DictConfig) -> None:
    """Refuse a dataset within the folder of the genomes, or genomes within that of the dataset, which is emptied."""
    source, output = Path(cfg.input).resolve(), Path(cfg.paths.output_dir).resolve()
    genomes = source if source.is_dir() else source.parent
    inside = source.is_relative_to(output) if not source.is_dir() else genomes.is_relative_to(output)
    if inside or (source.is_dir() and output.is_relative_to(genomes)):
        raise UserError(
            f"output={escaped(str(cfg.paths.output_dir))}: a dataset and the genomes of input={escaped(cfg.input)} need"
            " folders of their own"
        )


def _inputs_of_head(cfg: DictConfig) -> str:
    """Return which embeddings the head takes: ``dna``, ``protein`` or ``both``."""
    asked, head = value_of(cfg, "model.inputs"), value_of(cfg, "model.head.weights")
    if asked or not isinstance(head, str):
        return str(asked or "both")
    try:
        return str(json.loads(Path(head).with_name(INFO_FILE).read_text(encoding="utf-8"))["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return "both"


def _given(cfg: DictConfig, key: str, command: str) -> list[str]:
    """Return the names given as a setting."""
    value = value_of(cfg, key)
    if value is None:
        if key == "embeddings":
            return []
        raise UserError(f"{key}: not given; `{command} {key}=PATH`")
    return [str(name) for name in value] if isinstance(value, list) else [str(value)]
