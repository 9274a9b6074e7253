"""Converted encoders: safetensors with our parameter names, in the dtype of the computation.

The files are memory-mapped, so that the processes of a host share them and tensors are copied to the device directly.
"""

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from virnucpro_pl.errors import UserError
from virnucpro_pl.files.durable import replacing, write_text
from virnucpro_pl.files.file_names import utf8_name
from virnucpro_pl.files.folder_lock import FolderLock
from virnucpro_pl.models.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro_pl.models.encoders.esm2 import Esm2, Esm2Config
from virnucpro_pl.models.weights.cache import cache_folder

log = logging.getLogger(__name__)

_FORMAT = 1
_INFO = "converted.json"
_SHARD_BYTES = 2 << 30
_LOCK_SECONDS = 3600.0
_KINDS = {"dnabert_s": (DnabertS, DnabertSConfig), "esm2": (Esm2, Esm2Config)}


def converted_folder(files: dict[str, Any], dtype: torch.dtype) -> Path:
    """Return the folder of the conversion of a checkpoint.

    Args:
        files: path and state of its files.
        dtype: dtype of the tensors.
    """
    fingerprint = json.dumps([_FORMAT, files, str(dtype)], sort_keys=True)
    return cache_folder() / "converted" / hashlib.sha256(fingerprint.encode()).hexdigest()[:24]


def is_converted(folder: Path) -> bool:
    """Return whether a complete conversion exists."""
    return (folder / _INFO).is_file()


def write_converted(folder: Path, encoder: DnabertS | Esm2, source: dict[str, Any]) -> None:
    """Write a converted encoder; one of several processes writes, the others wait.

    Args:
        folder: folder of the conversion.
        encoder: encoder on the CPU, in its final dtype.
        source: description of the checkpoint, for information.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder / ".converting") as lock:
        lock.take_alone(_LOCK_SECONDS)
        if is_converted(folder):
            return
        kind = next(name for name, (module, _) in _KINDS.items() if isinstance(encoder, module))
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(_shards(encoder.state_dict())):
            name = f"model-{number:05d}.safetensors"
            with replacing(folder / name) as unfinished:
                save_file({key: tensor.contiguous() for key, tensor in shard.items()}, unfinished)
            weight_map |= dict.fromkeys(shard, name)
        info = {"format_version": _FORMAT, "encoder": kind, "config": asdict(encoder.config), "source": source}
        write_text(
            folder / _INFO, json.dumps({**info, "weight_map": weight_map}, indent=1) + "\n"
        )  # last, as it marks the conversion as complete


def _shards(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Split tensors into shards of about ``_SHARD_BYTES``, for small memories and file systems."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > _SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def read_converted(folder: Path) -> DnabertS | Esm2:
    """Load an encoder onto torch's default device.

    Raises:
        UserError: a file is damaged.
    """
    try:
        info = json.loads((folder / _INFO).read_text(encoding="utf-8"))
        module, config = _KINDS[info["encoder"]]
        with torch.device("meta"):
            encoder: DnabertS | Esm2 = module(config(**_tuples(info["config"])))
        tensors: dict[str, Tensor] = {}
        device = str(torch.get_default_device())
        for name in sorted(set(info["weight_map"].values())):
            with utf8_name(folder / Path(name).name) as shard, safe_open(shard, "pt", device=device) as file:
                tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        encoder.load_state_dict(tensors, assign=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: damaged ({reason}); remove the folder; it will be written again") from error
    encoder.requires_grad_(False).eval()
    return encoder


def _tuples(config: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
