"""Readers of weight files as plain tensors; no code in a file is run."""

import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from virnucpro_pl.errors import UserError
from virnucpro_pl.files.file_names import utf8_name


class Checkpoint(NamedTuple):
    """Tensors by name, and the metadata of their file."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


class _Inert:
    """Stand-in for the classes of published files: holds attributes and has no code."""


# Classes in published heads (pickled modules) and, the last one, in fair-esm files. None is imported.
_STAND_INS = (
    "__main__.MLPClassifier",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.batchnorm.BatchNorm1d",
    "torch.nn.modules.dropout.Dropout",
    "argparse.Namespace",
)
_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def read_file(path: Path) -> Checkpoint:
    """Read a safetensors file, or a ``torch.save`` file of tensors, a state dict or a published head.

    Raises:
        UserError: the file is missing, damaged, or holds other objects than tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weight file; check the path")
    return _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)


def _is_safetensors(path: Path) -> bool:
    """Return whether a file is a safetensors file, by its content or name."""
    with path.open("rb") as file:
        start = file.read(9)
    header_bytes = int.from_bytes(start[:8], "little")
    return path.suffix == ".safetensors" or (start[8:] == b"{" and header_bytes <= path.stat().st_size)


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with utf8_name(path) as name, safe_open(name, framework="pt") as file:
            names = file.keys()  # not a dict, so it cannot be iterated
            return Checkpoint({name: file.get_tensor(name) for name in names}, dict(file.metadata() or {}))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); copy or download it again") from error


def _read_pickle(path: Path) -> Checkpoint:
    try:
        with torch.serialization.safe_globals([(_Inert, name) for name in _STAND_INS]), utf8_name(path) as name:
            # Only the zip format can be memory-mapped, which saves a copy of gigabytes.
            content = torch.load(name, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # torch names the class or function in the pickle; without one the file is no pickle.
        if (refused := re.search(r"GLOBAL ([\w.]+)", str(error))) is None:
            raise UserError(f"{path}: not a weight file; copy or download it again") from error
        raise UserError(
            f"{path}: refused: it holds objects other than tensors, which could run code when loaded "
            f"({refused[1]}); export it as a state dict or safetensors file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise UserError(
            f"{path}: not a readable weight file ({_first_sentence(error)}); copy or download it again"
        ) from error
    return _plain(content, path)


def _first_sentence(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).split(". ")[0][:200]


def _plain(content: object, path: Path) -> Checkpoint:
    """Return the tensors and metadata of any published structure."""
    if isinstance(content, _Inert):
        return Checkpoint(dict(_module_tensors(content, "")), {})
    if isinstance(content, Mapping):
        for key in ("model", "state_dict", "model_state_dict"):
            if isinstance(content.get(key), Mapping):
                rest = {name: value for name, value in content.items() if name != key}
                return Checkpoint(_tensors(content[key], path), rest)
        return Checkpoint(_tensors(content, path), {})
    raise UserError(f"{path}: holds a {type(content).__name__}, not weights; give a state dict or safetensors file")


def _tensors(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no tensors; give a state dict or safetensors file")
    return tensors


def _module_tensors(module: _Inert, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a pickled ``nn.Module``, named as in its state dict."""
    attributes = vars(module)
    for group in ("_parameters", "_buffers"):
        for name, value in attributes.get(group, {}).items():
            if value is not None:
                yield prefix + name, value.detach()
    for name, child in attributes.get("_modules", {}).items():
        yield from _module_tensors(child, f"{prefix}{name}.")


def read_folder(folder: Path) -> Checkpoint:
    """Read a Hugging Face checkpoint folder, with or without shards; the metadata is its ``config.json``.

    Raises:
        UserError: a file is missing or damaged.
    """
    config = read_json(folder / "config.json")
    for name in _INDEX_FILES:
        if (folder / name).is_file():
            weight_map = read_json(folder / name).get("weight_map")
            if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
                raise UserError(f"{folder / name}: not an index of shards; download it again")
            shards = sorted(set(weight_map.values()))
            if any(Path(shard).name != shard for shard in shards):
                raise UserError(f"{folder / name}: names a file outside its folder; download the checkpoint again")
            parts = [read_file(folder / shard).tensors for shard in shards]
            return Checkpoint({name: tensor for part in parts for name, tensor in part.items()}, config)
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return Checkpoint(read_file(folder / name).tensors, config)
    raise UserError(f"{folder}: holds no weights; {' or '.join(_WEIGHT_FILES)} should be in it")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; a checkpoint folder has it beside its weights") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object; download it again")
    return content
