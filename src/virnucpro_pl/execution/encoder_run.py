"""What every command that runs the encoders does: an output folder, an input, and a trainer that goes through it."""

import logging
import sys
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Trainer
from omegaconf import DictConfig

from virnucpro_pl.configuration.hydra_config import build
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.data.embedding_cache import EncoderFingerprints
from virnucpro_pl.distributed.first_rank import end_ranks, first_rank_decides, from_another_rank, watch_of
from virnucpro_pl.errors import OutOfMemoryError, UserError, is_out_of_memory
from virnucpro_pl.execution.run_fingerprint import settings_fingerprint
from virnucpro_pl.execution.trainer import device_text, digest_cache_path, fingerprint_encoders, numerics_of
from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.files.durable import announced_to
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.models.weights.locked import check_lock, convert_fetched, fetched_digest_cache
from virnucpro_pl.results.summary import DEMO_WARNING
from virnucpro_pl.runs.fingerprint import INPUT, weights_fingerprint
from virnucpro_pl.runs.rank_metrics import RankMetrics
from virnucpro_pl.runs.run_folder import RunFolder
from virnucpro_pl.sequence.store import check_unchanged

log = logging.getLogger(__name__)


class EncoderRun(ABC):
    """One run, from what its output folder holds to what it will hold.

    Args:
        cfg: of the command.
        trainer: not used before.
        clock: takes the time of the stages.
        model: whose encoders run.
        result_files: names of what will be in the output folder.
        output: that folder.
        work: folder within it of what is needed until the results are there.
        extra_files: names of what can be made again of the result files, which may be in the output folder.
    """

    def __init__(
        self,
        cfg: DictConfig,
        trainer: Trainer,
        clock: StageClock,
        model: VirNucPro,
        result_files: tuple[str, ...],
        output: Path,
        work: Path,
        extra_files: tuple[str, ...] = (),
    ):
        self.began = time.monotonic()
        self.cfg = cfg
        self.trainer = trainer
        self.output, self.work = output, work
        self.folder = RunFolder(output, work, result_files, extra_files)
        self.model = model
        self._figures = RankMetrics(Path(cfg.paths.work_dir) / "figures")
        self.datamodule: FastaDataModule = build(
            cfg.data,
            clock=clock,
            encoders=self.fingerprint_encoders,
            modality=model.inputs,
            whole_chunks=model.fallback_source is not None,
            **self.caching(),
        )
        self.fingerprint = settings_fingerprint(cfg, trainer, model)
        self.weights: dict[str, Any] = {}

    def go(self) -> float:
        """Do what is still to be done, on all ranks; return what ``tell`` does, NaN on ranks other than the first."""
        is_first = self.trainer.is_global_zero
        if not is_first:
            logging.getLogger().setLevel(logging.WARNING)  # the first rank speaks for all
        try:
            if first_rank_decides(self.trainer, self.prepare, self.folder.is_finished):
                try:
                    self.run_encoders()
                    if is_first:
                        with announced_to(self.folder.note_appearing):
                            self.write_results()
                except Exception as error:
                    self._check_store(error)
                    raise
        except BaseException:
            end_ranks(self.trainer, failed=True)
            raise
        else:
            end_ranks(self.trainer, failed=False)
        finally:
            self.folder.leave()
        return self.tell() if is_first else float("nan")

    @abstractmethod
    def check_parts(self, digests: dict[str, list[str]]) -> None:
        """Refuse an input or weights that do not belong together, before the folder becomes this run's.

        Args:
            digests: SHA-256 of the files of each part of the model, sorted.
        """

    @abstractmethod
    def write_results(self) -> None:
        """Write what the output folder is to hold, once all ranks are done, and finish the run."""

    @abstractmethod
    def tell(self) -> float:
        """Say what came out, also of a run that was finished before, and return a figure."""

    def caching(self) -> dict[str, str | None]:
        """How embeddings are kept, as the data module takes it."""
        return {"embedding_cache": self.cfg.data.embedding_cache}

    def fingerprint_encoders(self) -> EncoderFingerprints:
        """Tell the encoders apart for the cache."""
        numerics = numerics_of(self.trainer, self.model)
        return fingerprint_encoders(self.model, numerics, digest_cache_path(self.caching()["embedding_cache"]))

    def prepare(self) -> bool:
        """Read the input and make the output folder this run's; False if the run is finished already.

        Mistakes in weights, input and folder stop the run here, on the first rank, before other processes start.
        """
        self.folder.enter(self.cfg.overwrite)
        if self.cfg.overwrite:
            self.folder.clear()
        self.folder.check(self.fingerprint)
        weights = self.model.fingerprint()
        if self.folder.finished is not None:
            hashing = _start_hashing(weights, None)
            self.fingerprint[INPUT] = self.datamodule.input_digests()
            self.folder.check(self.fingerprint | _fingerprint_of(hashing))
            self.folder.check_files()
            self.folder.clear_work()
            return False

        log.info("Device: %s", device_text(self.trainer))
        if self.model.demo:
            log.warning("Model %s: %s; choose another with model=…", self.model.name, DEMO_WARNING)
        self._figures.clear()
        digest_cache = digest_cache_path(self.caching()["embedding_cache"]) or fetched_digest_cache(self.model)
        digest_cache = digest_cache or self.work / "digests.json"
        hashing = _start_hashing(weights, digest_cache)
        if self.folder.is_taken and self.datamodule.can_be_read_twice():  # before hours go into storing another input
            self.folder.check({INPUT: self.datamodule.input_digests()})
        self.datamodule.prepare_data()
        self.fingerprint |= {INPUT: self.datamodule.input_digests(), **_fingerprint_of(hashing)}
        self.weights = {name: {**source, "sha256": hashing[name].result()} for name, source in weights.items()}
        check_lock(self.model, {name: source["sha256"] for name, source in self.weights.items()})
        self.check_parts({name: sorted(source["sha256"].values()) for name, source in self.weights.items()})
        self.folder.claim(self.fingerprint)
        convert_fetched(self.model, self.trainer.precision)
        return True

    def run_encoders(self) -> None:
        """Let all ranks go through the input."""
        try:
            self.trainer.predict(self.model, datamodule=self.datamodule, return_predictions=False)
        except Exception as error:
            if is_out_of_memory(error) and not isinstance(error, OutOfMemoryError):
                raise OutOfMemoryError(_out_of_memory_text(self.trainer, self.datamodule)) from error
            if told := from_another_rank(error):
                raise told from error
            raise

    def _check_store(self, error: Exception) -> None:
        """Raise what explains an error of whatever kind, if the store was changed while the run was going."""
        is_in_use = hasattr(self.datamodule, "store") and self.folder.finished is None
        if is_in_use and not isinstance(error, UserError):
            check_unchanged(self.datamodule.store.folder)

    def rank_metrics(self) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
        """Return what all ranks measured, once they are done: seconds per stage, and throughput."""
        stages, throughput = (self._figures.read(kind, self.trainer.world_size) for kind in ("stages", "throughput"))
        watch_of(self.trainer).stop()  # signs of life would come into the folder as it is removed
        if not hasattr(self.datamodule, "store"):  # the ranks were children of this process
            self.datamodule.trainer = self.trainer  # whose device decides on the plan
            self.datamodule.setup("predict")
        return stages, throughput

    def engine(self, throughput: list[dict[str, Any]]) -> dict[str, Any]:
        """What did the work."""
        return {
            "precision": str(self.trainer.precision),
            **self.model.numerics._asdict(),
            "attention": throughput[0]["attention"],
            "strategy": type(self.trainer.strategy).__name__,
            "world_size": self.trainer.world_size,
            "devices": [rank.get("gpu_name", rank["device"]) for rank in throughput],
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "cuda": torch.version.cuda if throughput[0].get("gpu_name") else None,
            "driver": throughput[0].get("gpu_driver"),
            "lightning": lightning.__version__,
        }


def _start_hashing(weights: dict[str, Any], digest_cache: Path | None) -> dict[str, "Future[dict[str, str]]"]:
    """Hash the weight files while the input is read; a large one takes half a minute."""
    hasher = ThreadPoolExecutor(1)
    digests = {
        name: hasher.submit(partial(sha256_of, Path(weight["path"]), digest_cache)) for name, weight in weights.items()
    }
    hasher.shutdown(wait=False)
    return digests


def _fingerprint_of(hashing: dict[str, "Future[dict[str, str]]"]) -> dict[str, Any]:
    return weights_fingerprint({name: digests.result() for name, digests in hashing.items()})


def _out_of_memory_text(trainer: Trainer, datamodule: FastaDataModule) -> str:
    """Say what would need less memory, and what is not lost."""
    text = f"out of memory on {trainer.strategy.root_device}"
    if not hasattr(datamodule, "plan"):  # the ranks were children of this process
        return f"{text}: give a smaller data.token_budget"
    if not trainer.predict_loop.batch_progress.total.ready:
        return f"{text} before the first batch: give a device with more memory, or trainer.precision=16-true"
    text += f" with data.token_budget={datamodule.token_budget}: give a smaller one"
    if datamodule.parts is None:
        return text
    if done := datamodule.plan.num_batches - len(datamodule.parts.waiting_batches(datamodule.plan)):
        text += (
            f"; or, if other programs held the memory, start the same command again: it continues after the {done} of"
            f" {datamodule.plan.num_batches} batches that are done"
        )
    return text
