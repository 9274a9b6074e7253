"""The ``predict`` command: from reads to viral calls."""

import json
import logging
import shutil
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl import __version__
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.errors import UserError
from virnucpro_pl.module import VirNucPro
from virnucpro_pl.results.consensus import CallingRules
from virnucpro_pl.results.figures import RankFigures
from virnucpro_pl.results.parts import PartsOfModel
from virnucpro_pl.results.summary import DEMO_WARNING, merge_figures, summary_lines
from virnucpro_pl.results.tables import RECORD_TABLE, RESULT_FILES, write_results
from virnucpro_pl.sequence.store import OrfStore
from virnucpro_pl.stages import CONSENSUS, StageClock
from virnucpro_pl.weights.sources import sha256_of

log = logging.getLogger(__name__)

RUN_FILE = "run.json"


def predict(cfg: DictConfig) -> float:
    """Run a prediction as configured; return the share of called records that are viral.

    Raises:
        UserError: something in the configuration, the input or the weights must be mended.
    """
    began = time.time()
    _quieten_lightning()
    output = Path(cfg.paths.output_dir)
    work = Path(cfg.paths.work_dir)
    rules: CallingRules = instantiate(cfg.results)
    rules.check()
    _check_output(output, cfg.overwrite)
    clock = StageClock()
    trainer = build_trainer(cfg, clock)
    model: VirNucPro = instantiate(cfg.model, clock=clock)
    log.info("Device: %s", _device_text(trainer))
    if model.demo:
        log.warning("Model %s: %s; choose another with model=…", model.name, DEMO_WARNING)
    model.sources["head"].check_chunk_length(cfg.data.chunk_length)
    identity = {name: source.identity() for name, source in model.sources.items()}
    parts = PartsOfModel(work / "parts", json.dumps([identity, str(trainer.precision)], sort_keys=True))
    datamodule: FastaDataModule = instantiate(cfg.data, clock=clock, parts=parts)
    figures = RankFigures(work / "figures")
    if trainer.is_global_zero:
        figures.clear()
        datamodule.prepare_data()  # before other processes start: a mistake in the input then stops just this one

    with ThreadPoolExecutor(1) as reader:
        paths = {name: Path(source["path"]) for name, source in identity.items()}
        digests = {name: reader.submit(sha256_of, path) for name, path in paths.items()} if trainer.is_global_zero else {}
        trainer.predict(model, datamodule=datamodule, return_predictions=False)
        if not trainer.is_global_zero:
            return float("nan")
        weights = {name: {**identity[name], "sha256": digest.result()} for name, digest in digests.items()}

    measured = [figures.read(kind, trainer.world_size) for kind in ("stages", "throughput")]
    host = StageClock()
    counts = _finish(datamodule, work, output, rules, host)
    run = {
        "version": __version__,
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(began)),
        "seconds": round(time.time() - began, 3),
        "model": {"name": model.name, "demo": model.demo, "weights": weights},
        "warnings": [DEMO_WARNING] if model.demo else [],
        "engine": {
            "attention": "runs",
            "precision": str(trainer.precision),
            "world_size": trainer.world_size,
            "devices": [figure.get("gpu_name", figure["device"]) for figure in measured[1]],
        },
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "lightning": lightning.__version__},
        "config": OmegaConf.to_container(cfg, resolve=True),
        "counts": counts,
        "figures": merge_figures(measured[0], measured[1], datamodule.token_budget, host.seconds()),
    }
    (output / RUN_FILE).write_text(json.dumps(run, indent=2, default=str) + "\n", encoding="utf-8")
    shutil.rmtree(work)
    for line in summary_lines(run):
        log.info(line)
    log.info("Results: %s", output)
    if cfg.output == "-":
        sys.stdout.write((output / RECORD_TABLE).read_text(encoding="utf-8"))
    called = counts["records"] - counts["calls"]["records"]["not_called"]
    return counts["calls"]["records"]["virus"] / called if called else 0.0


def build_trainer(cfg: DictConfig, clock: StageClock) -> Trainer:
    """Build the trainer with its callbacks.

    Raises:
        UserError: the device is not there, or a sweep asks for a strategy that cannot run in one.
    """
    callbacks = [instantiate(callback) for name, callback in cfg.callbacks.items() if name != "stage_timer"]
    if "stage_timer" in cfg.callbacks:
        callbacks.append(instantiate(cfg.callbacks.stage_timer, clock=clock))
    try:
        trainer: Trainer = instantiate(cfg.trainer, callbacks=callbacks)
        if cfg.trainer.precision is None and trainer.strategy.root_device.type == "cuda":
            # ESM-2 was trained in float16; on the CPU nothing is gained by less than float32.
            trainer = instantiate(cfg.trainer, callbacks=callbacks, precision="16-true")
    except (MisconfigurationException, InstantiationException) as error:
        cause = error.__cause__ or error
        raise UserError(f"trainer: {' '.join(str(cause).split())}") from error
    if HydraConfig.get().mode is RunMode.MULTIRUN and isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
        raise UserError(
            f"trainer.strategy={cfg.trainer.strategy} cannot run in a sweep, where its second job would lose batches;"
            " use trainer.strategy=ddp_spawn, or one run after another"
        )
    return trainer


def _quieten_lightning() -> None:
    """Silence hints of Lightning that do not apply here; its errors and other warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns of every retry; the last error is told
    for message in (
        r".*does not have many workers.*",  # tokenising keeps up with the encoders; waiting times are in the summary
        r".*couldn't infer the batch indices.*",  # batches carry their own rows
        r".*trying to infer the `batch_size`.*",
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning with torch 2.13
    ):
        warnings.filterwarnings("ignore", message)


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse to replace finished results unless told to; start over when told to."""
    if (output / RUN_FILE).exists():
        if not overwrite:
            raise UserError(f"output={output} holds the results of another run; give another folder or overwrite=true")
        for name in (RUN_FILE, *RESULT_FILES):
            (output / name).unlink(missing_ok=True)


def _device_text(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    name = f"{torch.cuda.get_device_name(device)}, {device}" if device.type == "cuda" else str(device)
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return f"{name}{threads}, {trainer.world_size} process(es), precision {trainer.precision}"


def _finish(datamodule: FastaDataModule, work: Path, output: Path, rules: CallingRules, clock: StageClock) -> dict[str, Any]:
    """Check that every planned ORF was scored once, write the result files, and return the counts."""
    if not hasattr(datamodule, "store"):  # the ranks were children of this process
        datamodule.setup("predict")
    store: OrfStore = datamodule.store
    assert datamodule.parts is not None
    with clock(CONSENSUS):
        scores = np.lib.format.open_memmap(
            work / "scores.npy", mode="w+", dtype=np.float32, shape=(store.num_orfs, 2)
        ) if store.num_orfs else np.empty((0, 2), dtype=np.float32)
        duplicates = store.duplicate_orfs() if datamodule.deduplicate else np.empty((0, 2), dtype=np.int64)
        datamodule.parts.gather(datamodule.plan.rows, duplicates, scores)
    calls = write_results(store.folder, scores, work / "results", rules, clock)
    for name in RESULT_FILES:
        (work / "results" / name).replace(output / name)
    manifest = store.manifest
    counts = {key: value for key, value in manifest.items() if key not in ("format_version", "settings")}
    if not manifest["records"]:
        log.warning("The input holds no records; the result files hold their headers only")
    if manifest["duplicate_names"]:
        log.warning(
            "%d records repeat the name of an earlier one; they are kept apart as NAME%s2, NAME%s3, …",
            manifest["duplicate_names"],
            manifest["duplicate_suffix"],
            manifest["duplicate_suffix"],
        )
    return {**counts, "calls": calls}
