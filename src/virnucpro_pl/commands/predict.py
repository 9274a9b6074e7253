"""The ``predict`` command: from reads to viral calls."""

import json
import logging
import shutil
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from hydra.utils import instantiate
from lightning import Trainer
from numpy.typing import NDArray
from omegaconf import DictConfig

from virnucpro_pl.commands.building import (
    RUN_FILE,
    arithmetic_of,
    build_trainer,
    device_text,
    digest_memo,
    finished_job,
    identify_encoders,
    make_room,
    origin,
)
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.errors import OutOfMemoryError, is_out_of_memory
from virnucpro_pl.module import VirNucPro
from virnucpro_pl.results.consensus import CallingRules
from virnucpro_pl.results.figures import RankFigures
from virnucpro_pl.results.parts import PartsOfModel
from virnucpro_pl.results.summary import DEMO_WARNING, merge_figures, summary_lines
from virnucpro_pl.results.tables import RECORD_TABLE, RESULT_FILES, write_results
from virnucpro_pl.stages import CONSENSUS, StageClock
from virnucpro_pl.weights.digests import sha256_of

log = logging.getLogger(__name__)


def predict(cfg: DictConfig) -> float:
    """Run a prediction as configured.

    Returns:
        Tokens per second of both encoders together over the time of prediction, what a sweep maximises; NaN on ranks
        other than the first.

    Raises:
        UserError: something in the configuration, the input or the weights must be mended.
        OutOfMemoryError: the device's memory, or the host's, does not suffice.
    """
    began = time.time()
    output, work = Path(cfg.paths.output_dir), Path(cfg.paths.work_dir)
    if run := finished_job(cfg):
        log.info("Done by an earlier start of this sweep: %s", output)
        return float(run["figures"]["tokens_per_second"])
    rules: CallingRules = instantiate(cfg.results)
    rules.check()
    clock = StageClock()
    trainer = build_trainer(cfg, clock)
    figures = RankFigures(work / "figures")
    if trainer.is_global_zero:
        make_room(output, RESULT_FILES, cfg.overwrite)
        figures.clear()
        log.info("Device: %s", device_text(trainer))
    else:
        logging.getLogger().setLevel(logging.WARNING)  # the first rank speaks for all

    model = _build_model(cfg, clock, trainer)
    identity = model.identity()
    datamodule = _build_datamodule(cfg, clock, trainer, model, identity)
    digests = {}
    if trainer.is_global_zero:
        datamodule.prepare_data()  # before other processes start: a mistake in the input then stops just this one
        digests = _start_hashing(identity, digest_memo(cfg.data.embedding_cache))
    _embed_and_score(trainer, model, datamodule)
    if not trainer.is_global_zero:
        return float("nan")

    stages, throughput = (figures.read(kind, trainer.world_size) for kind in ("stages", "throughput"))
    after = StageClock()
    counts = _write_results(datamodule, work, output, rules, after)
    run = {
        **origin(cfg, began),
        "warnings": _warnings(model, counts),
        "model": _model_record(model, identity, digests),
        "engine": _engine(model, trainer, throughput),
        "counts": counts,
        "embedding_cache": cfg.data.embedding_cache,
        "figures": merge_figures(stages, throughput, datamodule.token_budget, after.seconds()),
    }
    (output / RUN_FILE).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(work)
    _report(run, output)
    if cfg.output == "-":
        sys.stdout.write((output / RECORD_TABLE).read_text(encoding="utf-8"))
    return float(run["figures"]["tokens_per_second"])


def _build_model(cfg: DictConfig, clock: StageClock, trainer: Trainer) -> VirNucPro:
    model: VirNucPro = instantiate(cfg.model, clock=clock)
    if model.demo and trainer.is_global_zero:
        log.warning("Model %s: %s; choose another with model=…", model.name, DEMO_WARNING)
    model.head_source.check_chunk_length(cfg.data.chunk_length)
    return model


def _build_datamodule(
    cfg: DictConfig, clock: StageClock, trainer: Trainer, model: VirNucPro, identity: dict[str, Any]
) -> FastaDataModule:
    """Build the data module, which knows by weights and arithmetic what earlier runs have computed."""
    arithmetic = arithmetic_of(trainer, model)
    encoders = partial(identify_encoders, identity, arithmetic, digest_memo(cfg.data.embedding_cache))
    parts = PartsOfModel(Path(cfg.paths.work_dir) / "parts", json.dumps([identity, arithmetic], sort_keys=True))
    return instantiate(cfg.data, clock=clock, encoders=encoders, parts=parts)  # type: ignore[no-any-return]


def _start_hashing(identity: dict[str, Any], memo: Path | None) -> dict[str, "Future[dict[str, str]]"]:
    """Hash the weight files while the run goes on; a large one takes half a minute."""
    hasher = ThreadPoolExecutor(1)
    digests = {name: hasher.submit(sha256_of, Path(source["path"]), memo) for name, source in identity.items()}
    hasher.shutdown(wait=False)
    return digests


def _embed_and_score(trainer: Trainer, model: VirNucPro, datamodule: FastaDataModule) -> None:
    """Let all ranks write their parts."""
    try:
        trainer.predict(model, datamodule=datamodule, return_predictions=False)
    except Exception as error:
        if is_out_of_memory(error) and not isinstance(error, OutOfMemoryError):
            raise OutOfMemoryError(_out_of_memory_text(trainer, datamodule)) from error
        raise


def _out_of_memory_text(trainer: Trainer, datamodule: FastaDataModule) -> str:
    """Say what would need less memory, and what is not lost."""
    text = f"out of memory on {trainer.strategy.root_device}"
    if not hasattr(datamodule, "plan"):  # the ranks were children of this process
        return f"{text}: give a smaller data.token_budget"
    if not trainer.predict_loop.batch_progress.total.ready:
        return f"{text} before the first batch: give a device with more memory, or trainer.precision=16-true"
    text += f" with data.token_budget={datamodule.token_budget}: give a smaller one"
    assert datamodule.parts is not None
    if done := len(datamodule.parts.done_batches()):
        text += (
            f"; or, if other programs held the memory, start the same command again: it continues after the {done} of"
            f" {datamodule.plan.num_batches} batches that are done"
        )
    return text


def _write_results(
    datamodule: FastaDataModule, work: Path, output: Path, rules: CallingRules, clock: StageClock
) -> dict[str, Any]:
    """Check that every planned ORF was scored exactly once, write the result files, and return the counts."""
    if not hasattr(datamodule, "store"):  # the ranks were children of this process
        datamodule.setup("predict")
    assert datamodule.parts is not None
    store = datamodule.store
    with clock(CONSENSUS):
        scores = _new_scores(work / "scores.npy", store.num_orfs)
        datamodule.parts.gather(np.asarray(datamodule.plan.rows), np.asarray(datamodule.duplicates), scores)
    calls = write_results(store.folder, scores, work / "results", rules, clock)
    for name in RESULT_FILES:
        (work / "results" / name).replace(output / name)
    counts = {key: value for key, value in store.manifest.items() if key not in ("format_version", "settings")}
    return {**counts, "saved": datamodule.saved(), "calls": calls}


def _new_scores(path: Path, num_orfs: int) -> NDArray[np.float32]:
    """(orfs, 2) scores kept on disk, so that memory does not grow with the input."""
    if num_orfs == 0:  # an empty file cannot be mapped
        return np.empty((0, 2), dtype=np.float32)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(num_orfs, 2))


def _model_record(
    model: VirNucPro, identity: dict[str, Any], digests: "dict[str, Future[dict[str, str]]]"
) -> dict[str, Any]:
    """Which weights were used, with their SHA-256."""
    weights = {name: {**source, "sha256": digests[name].result()} for name, source in identity.items()}
    return {"name": model.name, "demo": model.demo, "weights": weights}


def _engine(model: VirNucPro, trainer: Trainer, throughput: list[dict[str, Any]]) -> dict[str, Any]:
    """What did the work."""
    return {
        "precision": str(trainer.precision),
        **model.arithmetic._asdict(),
        "attention": throughput[0]["attention"],
        "strategy": type(trainer.strategy).__name__,
        "world_size": trainer.world_size,
        "devices": [rank.get("gpu_name", rank["device"]) for rank in throughput],
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }


def _warnings(model: VirNucPro, counts: dict[str, Any]) -> list[str]:
    """What a reader of the results should know."""
    found = [DEMO_WARNING] if model.demo else []
    if not counts["records"]:
        found.append("the input holds no records; the result files hold their headers only")
    if repeats := counts["duplicate_names"]:
        suffix = counts["duplicate_suffix"]
        found.append(
            f"{repeats:,} records repeat the name of an earlier one; they are kept apart as"
            f" NAME{suffix}2, NAME{suffix}3, …"
        )
    return found


def _report(run: dict[str, Any], output: Path) -> None:
    for line in summary_lines(run):
        log.info(line)
    for warning in run["warnings"]:
        if warning != DEMO_WARNING:  # the summary ends with it
            log.warning("Warning: %s", warning)
    log.info("Results: %s (start with %s)", output, RECORD_TABLE)
