"""Checks of a machine: devices, packages, weights and disk."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import lightning
import torch

from virnucpro_pl import __version__
from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.models.encoders.attention import available_backends
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.models.weights.cache import is_offline
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.models.weights.sources import DnabertSSource, Esm2Source

State = Literal["ok", "note", "fix"]
_GIB = 1 << 30
_FETCHED = "it is fetched when it is first needed"
_ROOM = 5 * _GIB
_OPTIONAL = {
    "pysam": ("BAM and CRAM", "bam"),
    "flash_attn": ("the flash attention backend; others do as well", "flash"),
    "peft": ("train fine_tuning=lora", "lora"),
    "hydra_plugins.hydra_optuna_sweeper": ("sweeps that search, hydra/sweeper=optuna", "sweep"),
    "hydra_plugins.hydra_submitit_launcher": ("sweeps as SLURM jobs", "slurm"),
}


class Finding(NamedTuple):
    """Result of one check."""

    state: State
    """``fix``: prevents predictions"""
    subject: str
    text: str


def check_machine(device: torch.device) -> Iterator[Finding]:
    """Check programs, devices, attention kernels and optional packages."""
    versions = f"virnucpro_pl {__version__}, Python {platform.python_version()}, torch {torch.__version__}"
    yield Finding("ok", "versions", f"{versions}, lightning {lightning.__version__}")
    yield Finding("ok", "CPU", f"{_usable_cores()} cores, {_host_memory()}")
    yield from _check_gpus(device)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    for name, with_alibi in (("DNABERT-S", True), ("ESM-2", False)):
        backends = ", ".join(available_backends(device.type, dtype, with_alibi))
        yield Finding("ok", f"attention of {name}", f"{backends} on {device.type}")
    for module, (what, extra) in _OPTIONAL.items():
        if not _is_installed(module):
            yield Finding("note", module.split(".")[-1], f"not installed: {what}; pip install 'virnucpro-pl[{extra}]'")


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _host_memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not available on all systems
        return "memory unknown"
    return f"{total / _GIB:.0f} GiB of memory"


def _check_gpus(device: torch.device) -> Iterator[Finding]:
    if not torch.cuda.is_available():
        why = "this torch is built without CUDA" if torch.version.cuda is None else "no CUDA device was found"
        advice = "the demo model needs none; the published models are slow without"
        yield Finding("note", "GPU", f"{why}: {advice}")
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        text = f"{properties.name}, compute capability {properties.major}.{properties.minor}"
        used = "" if device != torch.device("cuda", number) else ", used"
        yield Finding("ok", f"cuda:{number}", f"{text}, {free / _GIB:.1f} of {total / _GIB:.1f} GiB free{used}")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def check_model(model: VirNucPro) -> Iterator[Finding]:
    """Check the weights of a model, without downloads."""
    for part, head in (("head", model.head_source), ("fallback_head", model.fallback_source)):
        if head is not None:
            yield _check_head(f"model.{part}", head)
    sources: dict[str, DnabertSSource | Esm2Source]
    try:
        sources = model.encoder_sources()
    except UserError:  # the head, which sets the modality, is missing
        sources = {"dna_encoder": model.dna_source, "protein_encoder": model.protein_source}
    for part, source in sources.items():
        yield _check_encoder(f"model.{part}", source)


def _check_head(key: str, head: HeadSource) -> Finding:
    if head.facts and head.on_disk() is None and not (head.offline or is_offline()):
        return Finding("note", key, f"{head.weights} of {head.facts.repository} is not on this machine; {_FETCHED}")
    try:
        inputs, info = head.load().num_inputs, head.info()
    except UserError as error:
        return Finding("fix", key, str(error))
    lengths = sorted({*info.chunk_lengths}) if info else [head.trained_chunk_length()]
    return Finding("ok", key, f"{head.path}, {inputs:,} numbers in, for chunks of {' to '.join(map(str, lengths))} nt")


def _check_encoder(key: str, source: DnabertSSource | Esm2Source) -> Finding:
    if (found := source.on_disk()) is not None:
        return Finding("ok", key, f"{found}, {_size(found) / 2**20:,.1f} MiB")
    if source.repository is None:
        return Finding("fix", key, f"{source.weights}: no such file or folder; check the path")
    text = f"{source.repository} is not on this machine"
    if source.offline or is_offline():
        why = "offline=true" if source.offline else "HF_HUB_OFFLINE is set"
        return Finding("fix", key, f"{text}, and {why}; give {key}.weights=FOLDER")
    return Finding("note", key, f"{text}; {_FETCHED}")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def check_disk(output: Path) -> Iterator[Finding]:
    """Check the disks of results and temporary files."""
    folder = output.absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        yield Finding("fix", "output", f"{folder} cannot be written; give another output=FOLDER")
    free = shutil.disk_usage(folder).free
    state: State = "ok" if free > _ROOM else "note"
    advice = "" if state == "ok" else "; the reads are kept there too while a run goes on"
    yield Finding(state, "disk", f"{free / _GIB:,.1f} GiB free for {output}{advice}")


def on_terminal(finding: Finding) -> str:
    """Return a finding as a line, with a coloured state on a terminal; control characters are escaped."""
    colour = {"ok": 32, "note": 33, "fix": 31}[finding.state]
    state = f"{finding.state:<4}"
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        state = f"\x1b[{colour}m{state}\x1b[0m"
    return f"{state}  {finding.subject:<24} {escaped(finding.text)}"
