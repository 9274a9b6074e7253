"""A run of the encoders over one input into an output folder; base of ``predict`` and ``embed``."""

import json
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
from virnucpro_pl.data.batching import RunFingerprints
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.data.embedding_cache import EncoderFingerprints
from virnucpro_pl.distributed.first_rank import end_ranks, first_rank_decides, from_another_rank, watch_of
from virnucpro_pl.errors import OutOfMemoryError, UserError, is_out_of_memory
from virnucpro_pl.execution.provenance import device_text
from virnucpro_pl.execution.run_fingerprint import (
    digest_cache_path,
    fingerprint_encoders,
    numerics_of,
    settings_fingerprint,
)
from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.files.durable import announced_to
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.models.weights.locked import check_lock, convert_fetched, fetched_digest_cache
from virnucpro_pl.results.summary import DEMO_WARNING
from virnucpro_pl.runs.fingerprint import INPUT, scores_fingerprint, weights_fingerprint
from virnucpro_pl.runs.rank_metrics import RankMetrics
from virnucpro_pl.runs.run_folder import RunFolder
from virnucpro_pl.runs.score_shards import ScoreShards
from virnucpro_pl.sequence.store import check_unchanged

log = logging.getLogger(__name__)


class EncoderRun(ABC):
    """Run of the encoders over one input, from preparing its output folder to publishing the results.

    Args:
        cfg: configuration of the command.
        trainer: a new trainer.
        clock: clock of the stages.
        model: model with the encoders.
        result_files: names of the files of the finished run.
        output: output folder.
        work: folder within it, removed when the run is finished.
        extra_files: names of files that can be made again from the result files.
        shards: score shards; None if nothing is scored.
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
        shards: ScoreShards | None = None,
    ):
        self.began = time.monotonic()
        self.cfg = cfg
        self.trainer = trainer
        self.output, self.work = output, work
        self.folder = RunFolder(output, work, result_files, extra_files)
        self.model = model
        self.shards = shards
        self._metrics = RankMetrics(Path(cfg.paths.work_dir) / "figures")
        self.datamodule: FastaDataModule = build(
            cfg.data,
            clock=clock,
            progress=self.shards,
            fingerprints=self.fingerprints,
            modality=model.inputs,
            whole_chunks=model.fallback_source is not None,
            **self.caching(),
        )
        self.source = self.datamodule.source
        self.fingerprint = settings_fingerprint(cfg, trainer, model)
        self.weights: dict[str, Any] = {}

    def run(self) -> float:
        """Do the remaining work on all ranks.

        Returns:
            The metric of ``report`` on the first rank, NaN on the others.
        """
        is_first = self.trainer.is_global_zero
        if not is_first:
            logging.getLogger().setLevel(logging.WARNING)  # the first rank logs for all
        try:
            if first_rank_decides(self.trainer, self.prepare, self._is_finished):
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
        return self.report() if is_first else float("nan")

    @abstractmethod
    def check_inputs(self, digests: dict[str, list[str]]) -> None:
        """Refuse an input or weights that do not fit each other, before the folder is claimed.

        Args:
            digests: SHA-256 of the weight files of the head and of each encoder, sorted.
        """

    @abstractmethod
    def write_results(self) -> None:
        """Write the results once all ranks are done, and finish the run."""

    @abstractmethod
    def report(self) -> float:
        """Log the results, also of a run that was finished before, and return a metric."""

    def caching(self) -> dict[str, str | None]:
        """Return the cache settings of the data module."""
        return {"embedding_cache": self.cfg.data.embedding_cache}

    def fingerprints(self) -> RunFingerprints:
        """Return the fingerprints of the scores and of the encoders, once the run is prepared."""
        scores = json.dumps(scores_fingerprint(self.fingerprint), sort_keys=True)
        return RunFingerprints(scores, self.fingerprint_encoders() if self.caching()["embedding_cache"] else None)

    def fingerprint_encoders(self) -> EncoderFingerprints:
        """Return the fingerprints of the encoders for the embedding cache."""
        numerics = numerics_of(self.trainer, self.model)
        return fingerprint_encoders(self.model, numerics, digest_cache_path(self.caching()["embedding_cache"]))

    def prepare(self) -> bool:
        """Read the input and claim the output folder; return False if the run is finished already.

        Mistakes in weights, input and folder stop the run here, on the first rank, before other processes start.
        """
        self.folder.enter(self.cfg.overwrite)
        if self.cfg.overwrite:
            self.folder.clear_unfinished()
        self.folder.check(self.fingerprint)
        weights = self.model.fingerprint()
        if self.folder.finished is not None:
            hashing = _start_hashing(weights, None)
            self.fingerprint[INPUT] = self.source.digests()
            self.folder.check(self.fingerprint | _fingerprint_of(hashing))
            self.folder.check_files()
            self.folder.clear_work()
            return False

        log.info("Device: %s", device_text(self.trainer))
        if self.model.demo:
            log.warning("Model %s: %s; choose another with model=…", self.model.name, DEMO_WARNING)
        self._metrics.clear()
        digest_cache = digest_cache_path(self.caching()["embedding_cache"]) or fetched_digest_cache(self.model)
        digest_cache = digest_cache or self.work / "digests.json"
        hashing = _start_hashing(weights, digest_cache)
        if self.folder.is_taken and self.source.can_be_read_twice():  # building the store may take hours
            self.folder.check({INPUT: self.source.digests()})
        self.source.prepare()
        self.fingerprint |= {INPUT: self.source.digests(), **_fingerprint_of(hashing)}
        self.weights = {name: {**source, "sha256": hashing[name].result()} for name, source in weights.items()}
        check_lock(self.model, {name: source["sha256"] for name, source in self.weights.items()})
        self.check_inputs({name: sorted(source["sha256"].values()) for name, source in self.weights.items()})
        if self.cfg.overwrite:  # not before the input and the weights are known to be usable
            self.folder.clear_finished()
        self.folder.claim(self.fingerprint)
        if self.shards:
            self.shards.clear_unfinished()
        convert_fetched(self.model, self.trainer.precision)
        return True

    def _is_finished(self) -> bool:
        """Return whether the folder holds a finished run that stays."""
        return not self.cfg.overwrite and self.folder.is_finished()

    def run_encoders(self) -> None:
        """Run the encoders over the input on all ranks."""
        try:
            self.trainer.predict(self.model, datamodule=self.datamodule, return_predictions=False)
        except Exception as error:
            if is_out_of_memory(error) and not isinstance(error, OutOfMemoryError):
                raise OutOfMemoryError(_out_of_memory_text(self.trainer, self.datamodule, self.shards)) from error
            if cause := from_another_rank(error):
                raise cause from error
            raise

    def _check_store(self, error: Exception) -> None:
        """Raise DamagedStoreError in place of an error if the store was changed during the run."""
        is_in_use = hasattr(self.datamodule, "store") and self.folder.finished is None
        if is_in_use and not isinstance(error, UserError):
            check_unchanged(self.datamodule.store.folder)

    def rank_metrics(self) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
        """Return the seconds per stage and the throughput of each rank, once all ranks are done."""
        stages, throughput = (self._metrics.read(kind, self.trainer.world_size) for kind in ("stages", "throughput"))
        watch_of(self.trainer).stop()  # heartbeats would appear in the folder while it is removed
        self.datamodule.restore(throughput[0]["token_budget"])
        return stages, throughput

    def engine(self, throughput: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the software, devices and settings of the encoders, for the run record."""
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
    """Start to hash the weight files, which takes half a minute for a large one."""
    hasher = ThreadPoolExecutor(1)
    digests = {
        name: hasher.submit(partial(sha256_of, Path(weight["path"]), digest_cache)) for name, weight in weights.items()
    }
    hasher.shutdown(wait=False)
    return digests


def _fingerprint_of(hashing: dict[str, "Future[dict[str, str]]"]) -> dict[str, Any]:
    return weights_fingerprint({name: digests.result() for name, digests in hashing.items()})


def _out_of_memory_text(trainer: Trainer, datamodule: FastaDataModule, shards: ScoreShards | None) -> str:
    """Return a message that names what needs less memory and what is kept."""
    text = f"out of memory on {trainer.strategy.root_device}"
    if not hasattr(datamodule, "plan"):  # the ranks were children of this process
        return f"{text}: give a smaller data.token_budget"
    if not trainer.predict_loop.batch_progress.total.ready:
        return f"{text} before the first batch: give a device with more memory, or trainer.precision=16-true"
    text += f" with data.token_budget={datamodule.token_budget}: give a smaller one"
    if shards and (done := datamodule.plan.num_batches - len(shards.missing(datamodule.plan))):
        text += (
            f"; or, if other programs held the memory, start the same command again: it continues after the {done} of"
            f" {datamodule.plan.num_batches} batches that are done"
        )
    return text
