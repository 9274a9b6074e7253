"""What every command that uses a trainer needs."""

import json
import logging
import platform
import re
import subprocess
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from omegaconf import DictConfig, OmegaConf

from virnucpro_pl import __version__
from virnucpro_pl.configuration.hydra_config import PACKAGE, build, command
from virnucpro_pl.data.embedding_cache import EncoderFingerprints
from virnucpro_pl.distributed.heartbeat import RankWatch
from virnucpro_pl.distributed.strategy import SeparateRanks
from virnucpro_pl.errors import UserError
from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.files.output_files import RUN_FILE
from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2, StageClock
from virnucpro_pl.models.virnucpro import VirNucPro


def build_trainer(cfg: DictConfig, clock: StageClock) -> Trainer:
    """Build the trainer and its callbacks.

    Args:
        cfg: has them, and the model.
        clock: for the callbacks that need it.

    Raises:
        UserError: the device is not there, or a sweep asks for a strategy that cannot run in one.
    """
    _quieten_libraries()
    callbacks = _callbacks(cfg, clock)
    trainer = _trainer(cfg, callbacks)
    if better := _better_settings(cfg, trainer):
        trainer = _trainer(cfg, callbacks, **better)
    _check_processes(trainer)
    if HydraConfig.get().mode is RunMode.MULTIRUN and isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
        raise UserError(
            f"trainer.strategy={cfg.trainer.strategy} cannot run in a sweep, where its second job would lose batches;"
            " use trainer.strategy=ddp_spawn, or one run after another"
        )
    return trainer


def build_fit_trainer(cfg: DictConfig) -> Trainer:
    """Build the trainer of a head, its callbacks and its loggers.

    Raises:
        UserError: the device is not there.
    """
    _quieten_libraries()
    loggers = [build(logger) for logger in cfg.logger.values() if logger]
    trainer = _trainer(cfg, _callbacks(cfg, None), logger=loggers)
    _check_processes(trainer)
    return trainer


def build_score_trainer(cfg: DictConfig) -> Trainer:
    """Build a trainer that scores embeddings.

    Raises:
        UserError: the device is not there.
    """
    _quieten_libraries()
    return _trainer(cfg, [])


def _use_threads(cfg: DictConfig) -> None:
    """Compute with so many threads as asked for; libraries take as many as there are cores that may be used."""
    if cfg.threads is None:
        return
    if not isinstance(cfg.threads, int) or cfg.threads < 1:
        raise UserError(f"threads={cfg.threads}: give a number above 0, or null for all cores")
    torch.set_num_threads(cfg.threads)
    pa.set_cpu_count(cfg.threads)


def _callbacks(cfg: DictConfig, clock: StageClock | None) -> list[Callback]:
    """Build the callbacks that are not switched off.

    Raises:
        UserError: one of them refuses its settings.
    """
    callbacks = []
    for name, callback in cfg.callbacks.items():
        if callback:
            try:
                callbacks.append(build(callback, clock=clock) if "clock" in callback else build(callback))
            except UserError:
                raise
            except (MisconfigurationException, ValueError, TypeError) as error:
                raise UserError(f"callbacks.{name}: {' '.join(str(error).split())}") from error
    return callbacks


def _trainer(cfg: DictConfig, callbacks: list[Callback], **settings: Any) -> Trainer:
    _use_threads(cfg)
    try:
        trainer: Trainer = build(cfg.trainer, callbacks=callbacks, **settings)
    except UserError:
        raise
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split()).rstrip("!.")
        is_of_device = re.search("accelerator|device|gpu|cuda|mps", reason, re.IGNORECASE)
        hint = "; trainer.accelerator=auto takes what there is" if is_of_device else ""
        raise UserError(f"trainer: {reason}{hint}") from error
    return trainer


def _check_processes(trainer: Trainer) -> None:
    """Make sure that as many processes were started from outside as the trainer expects; Lightning checks too late."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None or not environment.creates_processes_externally:
        return
    try:
        environment.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


def _better_settings(cfg: DictConfig, trainer: Trainer) -> dict[str, Any]:
    """Return what can be chosen only once Lightning has found the devices."""
    better: dict[str, Any] = {}
    if cfg.trainer.precision is None and trainer.strategy.root_device.type == "cuda" and not cfg.model.exact:
        # ESM-2 was trained in float16; on the CPU nothing is gained by less than float32.
        better["precision"] = "16-true"
    if type(trainer.strategy) is DDPStrategy:
        starts_scripts = isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher)
        (watch,) = (callback for callback in trainer.callbacks if isinstance(callback, RankWatch))  # type: ignore[attr-defined]
        better["strategy"] = SeparateRanks("popen" if starts_scripts else "spawn", watch)
    return better


def device_text(trainer: Trainer) -> str:
    """Say on what a run computes."""
    device = trainer.strategy.root_device
    name = f"{torch.cuda.get_device_name(device)} ({device})" if device.type == "cuda" else str(device)
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return f"{name}{threads}, {trainer.world_size} process(es), precision {trainer.precision}"


def digest_cache_path(embedding_cache: str | None) -> Path | None:
    """File of an embedding cache that keeps the digests of weights."""
    return None if embedding_cache is None else Path(embedding_cache) / "weights.json"


def fingerprint_encoders(model: VirNucPro, numerics: dict[str, Any], digest_cache: Path | None) -> EncoderFingerprints:
    """Tell apart encoders whose embeddings are not the same numbers: by weights, precision and kind of device.

    Args:
        model: knows where its weights are.
        numerics: what the embeddings depend on beside the weights.
        digest_cache: where the digests of weights are kept.
    """
    sources = model.encoder_sources()

    def text(name: str, encoder: str) -> str | None:
        if name not in sources:
            return None
        digests = sha256_of(Path(sources[name].fingerprint()["path"]), digest_cache)
        return json.dumps({"encoder": encoder, "weights": sorted(digests.values()), **numerics})

    return EncoderFingerprints(text("dna_encoder", DNABERT_S), text("protein_encoder", ESM2))


def numerics_of(trainer: Trainer, model: VirNucPro) -> dict[str, Any]:
    """Return what embeddings depend on beside weights and sequences."""
    return {
        "precision": str(trainer.precision),
        "device": trainer.strategy.root_device.type,
        **model.numerics._asdict(),
    }


def make_room(output: Path, files: Iterable[str], overwrite: bool) -> None:
    """Refuse to replace the results of another run unless told to, and then clear them away.

    Args:
        output: folder of the results.
        files: their names; the run record, which comes last, is always one of them.
        overwrite: whether they may be replaced.

    Raises:
        UserError: they are there and may not.
    """
    if not (output / RUN_FILE).exists():
        return
    if not overwrite:
        raise UserError(f"output={output} holds the results of a finished run; give another folder or overwrite=true")
    for path in (output / RUN_FILE, *(output / name for name in files)):
        if not path.is_dir():  # embeddings are used again
            path.unlink(missing_ok=True)


def origin(cfg: DictConfig, began: float) -> dict[str, Any]:
    """Return what was asked for, and when, for the record of a run.

    Args:
        cfg: the configuration of the run.
        began: when it began, by ``time.monotonic()``, which no change of the clock moves.
    """
    hydra = HydraConfig.get()
    seconds = time.monotonic() - began
    return {
        "version": __version__,
        "command": command(),
        "directory": str(hydra.runtime.cwd),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(time.time() - seconds)),
        "seconds": round(seconds, 3),
        "commit": _commit(),
        "platform": platform.platform(),
        "config": OmegaConf.to_container(cfg, resolve=True),
    }


def _commit() -> str | None:
    """Commit of the checkout this program runs from, None where it runs from an installed package."""
    if not (PACKAGE.parents[1] / ".git").exists():
        return None
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or not its repository
        return None


def _quieten_libraries() -> None:
    """Silence hints that do not apply here; errors and other warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns of every retry; the last error is told
    for message in (
        r".*does not have many workers.*",  # waiting for data is measured and in the summary
        r".*Consider setting `persistent_workers=True`.*",  # workers start once, prediction is one epoch
        r".*GPU available but not used.*",  # the device is the log's first line
        r".*Checkpoint directory .* exists and is not empty.*",  # a run that goes on
        r".*Couldn't infer the batch indices.*",  # batches carry their own rows
        r".*Total length of `ReadAheadLoader` across ranks is zero.*",  # an input without ORFs
        r".*isinstance\(treespec, LeafSpec\).*",  # Lightning with torch 2.13
    ):
        warnings.filterwarnings("ignore", message)
