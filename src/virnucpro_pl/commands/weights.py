"""The ``weights`` command: list, fetch, verify, convert, export and import weights."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from virnucpro_pl.configuration.hydra_config import CONF, build
from virnucpro_pl.errors import DamagedWeightsError, UserError, escaped
from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.host.standard_output import results_on_standard_output
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.models.weights.hub import gigabytes, is_whole
from virnucpro_pl.models.weights.lock import WeightsLock
from virnucpro_pl.models.weights.locked import check_lock, fetched_digest_cache
from virnucpro_pl.models.weights.sources import DnabertSSource, Esm2Source
from virnucpro_pl.models.weights.transport import export_weights, import_weights

log = logging.getLogger(__name__)

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def weights(cfg: DictConfig) -> float:
    """Run an action on the weights of a model.

    Returns:
        Number of weights or files.

    Raises:
        UserError: a setting is out of range, or weights are missing.
        DamagedWeightsError: weights are damaged.
    """
    if cfg.action not in _ACTIONS:
        raise UserError(f"weights {cfg.action}: choose one of {', '.join(_ACTIONS)}")
    return float(_ACTIONS[cfg.action](cfg))


def _list(_: DictConfig) -> int:
    """Show the weights of each model and their location."""
    table = Table("model", "part", "weights", "size", "licence", "here", box=None, header_style="bold")
    for name in sorted(file.stem for file in (CONF / "model").glob("*.yaml")):
        model: VirNucPro = build(compose("weights", [f"model={name}"]).model)
        assert model.head_source is not None, "every model configuration has a head"
        sources: dict[str, HeadSource | DnabertSSource | Esm2Source]
        sources = {"dna_encoder": model.dna_source, "protein_encoder": model.protein_source, "head": model.head_source}
        for part, source in sources.items():
            found, facts = source.on_disk(), source.facts
            size = facts.size if facts and facts.size else None if found is None else _bytes(found)
            shown = str(source.weights) if part == "head" or not found or source.lock_name else found.name
            here = str(found) if found else "no"
            row = (name, part, shown, "?" if size is None else gigabytes(size), facts.licence if facts else "–", here)
            table.add_row(*map(escaped, row))
    with results_on_standard_output():
        Console(file=sys.stdout, width=None if sys.stdout.isatty() else 240).print(table)
    return table.row_count


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _fetch(cfg: DictConfig) -> int:
    """Download missing weights and compare them with the lock file."""
    model = _model(cfg)
    found = {name: source.locate() for name, source in model.sources().items()}
    digest_cache = fetched_digest_cache(model)
    check_lock(model, {name: sha256_of(path, digest_cache) for name, path in found.items()})
    for name, path in found.items():
        log.info("%-16s %s", name, path)
    return len(found)


def _path(cfg: DictConfig) -> int:
    """Print the paths of the weights on standard output."""
    found = {name: source.on_disk() for name, source in _model(cfg).sources().items()}
    if missing := [name for name, path in found.items() if path is None]:
        raise UserError(
            f"{', '.join(missing)} of model={cfg.model.name} not on this machine; `weights fetch` gets them"
        )
    with results_on_standard_output():
        for name, path in found.items():
            print(f"model.{name}.weights={path}")
    return len(found)


def _verify(cfg: DictConfig) -> int:
    """Compare all files with the hub's checksums and with ``weights.lock``."""
    model, lock = _model(cfg), WeightsLock.here()
    mistakes, count = [], 0
    for name, source in model.sources().items():
        path = source.on_disk()
        if path is None:
            raise UserError(f"model.{name}.weights={source.weights}: not on this machine; `weights fetch` gets it")
        digests = sha256_of(path)
        count += len(digests)
        files = {file.name: file for file in (path.iterdir() if path.is_dir() else [path])}
        damaged = [file for file in digests if not is_whole(files[file])]
        try:
            if source.lock_name:
                lock.check(source.lock_name, digests)
        except UserError as error:
            mistakes.append(str(error))
        mistakes += [f"{files[file]}: damaged, its checksum is not the hub's" for file in damaged]
        for file, digest in digests.items():
            log.info("%-16s %-40s %s%s", name, escaped(file), digest, "  DAMAGED" if file in damaged else "")
    for mistake in mistakes:
        log.error("Error: %s", escaped(mistake))
    if mistakes:
        raise DamagedWeightsError(f"{len(mistakes)} files are damaged; remove them and fetch them again")
    log.info("Verified: %d files", count)
    return count


def _convert(cfg: DictConfig) -> int:
    """Convert the encoders, and log the tensors of the head."""
    if cfg.dtype not in _DTYPES:
        raise UserError(f"dtype={cfg.dtype}: choose one of {', '.join(_DTYPES)}")
    model = _model(cfg)
    for name, source in model.sources().items():
        if isinstance(source, HeadSource):
            checkpoint, info = source.read(), source.info()
            log.info("%-16s %s, read as it is", name, source.path)
            for tensor_name, tensor in checkpoint.tensors.items():
                log.info("  %-36s %-14s %s", escaped(tensor_name), tuple(tensor.shape), str(tensor.dtype)[6:])
            trained = info.chunk_lengths if info else source.trained_chunk_length()
            log.info("  trained on chunks of %s nt, %s", trained, "a bundle of train" if info else "no more is known")
        else:
            folder = source.convert(_DTYPES[cfg.dtype])
            log.info("%-16s %s (%s)", name, folder, gigabytes(_bytes(folder)))
    return len(model.sources())


def _export(cfg: DictConfig) -> int:
    """Copy the weights into a folder for a machine without a network."""
    return export_weights(_model(cfg).sources(), _folder(cfg), cfg.overwrite)


def _import(cfg: DictConfig) -> int:
    """Import exported weights."""
    return import_weights(_folder(cfg))


def _folder(cfg: DictConfig) -> Path:
    if not cfg.folder:
        raise UserError(f"folder: name it: weights {cfg.action} folder=FOLDER")
    return Path(cfg.folder)


def _model(cfg: DictConfig) -> VirNucPro:
    model: VirNucPro = build(cfg.model)
    return model


_ACTIONS: dict[str, Callable[[DictConfig], int]] = {
    "list": _list,
    "fetch": _fetch,
    "verify": _verify,
    "convert": _convert,
    "path": _path,
    "export": _export,
    "import": _import,
}
