"""The ``benchmark`` command: speed of the encoders and of ``predict`` on this machine, with random weights."""

import importlib.metadata
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from virnucpro_pl.benchmarking.measurement import PREDICT, Measurement, rows, write_csv
from virnucpro_pl.benchmarking.precisions import Precision, choose_precisions
from virnucpro_pl.benchmarking.rates import matrix_flops_per_token
from virnucpro_pl.benchmarking.report import plot_speeds, progress_line, speed_table
from virnucpro_pl.benchmarking.suite import Prediction, Settings, Suite
from virnucpro_pl.benchmarking.synthetic_reads import Reads, write_reads
from virnucpro_pl.configuration.hydra_config import build
from virnucpro_pl.data.batching import default_token_budget
from virnucpro_pl.errors import OutOfMemoryError, UserError, is_out_of_memory
from virnucpro_pl.execution.provenance import provenance
from virnucpro_pl.execution.trainer import build_trainer
from virnucpro_pl.files.durable import write_text
from virnucpro_pl.files.folder_lock import LOCK_FILE, FolderLock, in_use
from virnucpro_pl.files.output_files import BENCHMARK_PLOT, BENCHMARK_TABLE, FILES, RUN_FILE
from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2, StageClock
from virnucpro_pl.host.standard_output import copy_to_standard_output
from virnucpro_pl.results.publishing import files_in
from virnucpro_pl.runs.rank_metrics import RankMetrics
from virnucpro_pl.runs.run_folder import clear_results
from virnucpro_pl.runs.score_shards import ScoreShards

log = logging.getLogger(__name__)

_LIBRARIES = ("torch", "lightning", "transformers", "fair-esm", "triton", "flash-attn")


def benchmark(cfg: DictConfig) -> float:
    """Measure encoders and ``predict``.

    Returns:
        ESM-2 tokens per second of ``predict`` in the first precision, over all reads.

    Raises:
        UserError: the configuration has a mistake.
        OutOfMemoryError: the device has too little memory.
    """
    began = time.monotonic()
    output, work = Path(cfg.paths.output_dir), Path(cfg.paths.work_dir)
    device = _device(cfg)
    settings = _settings(cfg)
    precisions = choose_precisions(None if cfg.precisions is None else _listed(cfg.precisions), device)
    if not cfg.overwrite:
        clear_results(output, (), overwrite=False)  # refuses before the folder is touched
    with FolderLock(work / LOCK_FILE) as lock:
        if not lock.take_alone(0.0):
            raise in_use(output)
        clear_results(output, FILES["benchmark"], cfg.overwrite)
        measurements = _measure(cfg, device, settings, precisions)
        title = f"{_sizes(cfg)} on {_device_name(device)}, random weights"
        write_csv(measurements, output / BENCHMARK_TABLE)
        plot_speeds(measurements, title, output / BENCHMARK_PLOT)
        record = _record(cfg, began, device, measurements) | files_in(output, FILES["benchmark"])
        write_text(output / RUN_FILE, json.dumps(record, indent=2) + "\n")
        shutil.rmtree(work)

    for line in (title, *speed_table(measurements).splitlines()):
        log.info(line)
    log.info("Results: %s (%s, %s)", output, BENCHMARK_TABLE, BENCHMARK_PLOT)
    if cfg.output == "-":
        copy_to_standard_output(output / BENCHMARK_TABLE)
    return _tokens_per_second(measurements, precisions[0])


def _measure(
    cfg: DictConfig, device: torch.device, settings: Settings, precisions: Sequence[Precision]
) -> list[Measurement]:
    """Return the measurements, which are logged as they come."""
    work = Path(cfg.paths.work_dir)
    shutil.rmtree(work / "parts", ignore_errors=True)  # of an interrupted run
    log.info("Device: %s; %s", _device_name(device), ", ".join(precision.name for precision in precisions))

    reads = [write_reads(settings.num_reads(device), length, settings.seed, work) for length in settings.read_lengths]
    measurements: list[Measurement] = []

    def report(found: Measurement) -> None:
        measurements.append(found)
        log.info("  %s", progress_line(found))

    cfg.data.token_budget = cfg.data.token_budget or default_token_budget(device)
    builder = _Builder(cfg, work)
    try:
        Suite(builder, settings, reads, RankMetrics(work / "figures"), report).run(precisions)
    except Exception as error:
        if is_out_of_memory(error):
            advice = "give a smaller data.token_budget, or another architecture"
            raise OutOfMemoryError(f"out of memory on {_device_name(device)}: {advice}") from error
        raise
    return measurements


class _Builder:
    """Builder of the objects of ``predict``: trainer, callbacks, module and data module."""

    def __init__(self, cfg: DictConfig, work: Path):
        self._cfg = cfg
        self._work = work

    def __call__(self, precision: Precision, reads: Reads) -> Prediction:
        cfg = self._cfg.copy()
        cfg.trainer.precision = precision.trainer
        cfg.model.fp8, cfg.model.fp16_accumulation = precision.fp8, precision.fp16_accumulation
        cfg.data.input, cfg.data.chunk_length = str(reads.path), reads.length
        # A folder of its own, so that no scores of another measurement are used again.
        cfg.callbacks.part_writer.folder = str(self._work / "parts" / precision.name)
        clock = StageClock()
        trainer = build_trainer(cfg, clock)
        shards = ScoreShards(Path(cfg.callbacks.part_writer.folder))
        return Prediction(trainer, build(cfg.model, clock=clock), build(cfg.data, clock=clock), shards)


def _device(cfg: DictConfig) -> torch.device:
    """Return the device to measure."""
    if cfg.trainer.precision is not None:
        raise UserError(f"trainer.precision={cfg.trainer.precision}: give precisions=[{cfg.trainer.precision}]")
    for key, precision in (("fp8", "fp8"), ("fp16_accumulation", "fp16-accumulation")):
        if cfg.model[key]:
            raise UserError(f"model.{key}={cfg.model[key]}: give precisions=[{precision}]")
    if cfg.data.token_budget == "auto":
        raise UserError("data.token_budget=auto: benchmark compares at one size of batches; give a number of tokens")
    trainer = build_trainer(cfg, StageClock())
    if trainer.world_size != 1:
        raise UserError(f"trainer: benchmark measures one device, not {trainer.world_size}; give trainer.devices=1")
    return trainer.strategy.root_device


def _settings(cfg: DictConfig) -> Settings:
    given: dict[str, Any] = {name: OmegaConf.select(cfg, name) for name in Settings._fields}
    settings = Settings(**given | {"read_lengths": _listed(cfg.read_lengths)})
    settings.check()
    return settings


def _listed(value: Any) -> list[Any]:
    """Return a list of one value or of several."""
    return list(value) if isinstance(value, ListConfig) else [value]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device}, {torch.get_num_threads()} threads"


def _sizes(cfg: DictConfig) -> str:
    """Return the layers and widths of both encoders as text."""
    sizes = [
        f"{name} {config.num_layers} x {config.width}"
        for name, config in (
            (ESM2, cfg.architecture.protein_encoder.config),
            (DNABERT_S, cfg.architecture.dna_encoder.config),
        )
    ]
    return " and ".join(sizes)


def _record(cfg: DictConfig, began: float, device: torch.device, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Return the run record."""
    encoders = {ESM2: cfg.architecture.protein_encoder, DNABERT_S: cfg.architecture.dna_encoder}
    return {
        **provenance(cfg, began),
        "engine": {
            "device": _device_name(device),
            "cuda": torch.version.cuda,
            "threads": torch.get_num_threads(),
            "python": sys.version.split()[0],
            **{name: _version(name) for name in _LIBRARIES},
        },
        "matrix_flops_per_token": {
            name: matrix_flops_per_token(build(source.config)) for name, source in encoders.items()
        },
        "measurements": rows(measurements),
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tokens_per_second(measurements: Iterable[Measurement], precision: Precision) -> float:
    """Return the tokens per second of ``predict`` over reads of all lengths."""
    whole = [found for found in measurements if found.part == PREDICT and found.precision == precision.name]
    return sum(found.tokens for found in whole) / sum(found.seconds for found in whole)
