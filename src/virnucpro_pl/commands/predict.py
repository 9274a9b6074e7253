"""The ``predict`` command: from reads to viral calls."""

import json
import logging
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import DictConfig

from virnucpro_pl.commands.building import (
    arithmetic_of,
    build_trainer,
    device_text,
    digest_memo,
    identify_encoders,
    origin,
)
from virnucpro_pl.commands.identity import INPUT, identity_of_scores, settings_identity, weights_identity
from virnucpro_pl.commands.ranks import (
    check_output_is_named,
    end_ranks,
    first_rank_decides,
    from_another_rank,
    watch_of,
)
from virnucpro_pl.commands.run_folder import RunFolder
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.digests import sha256_of
from virnucpro_pl.errors import OutOfMemoryError, escaped, is_out_of_memory
from virnucpro_pl.module import VirNucPro
from virnucpro_pl.results.consensus import CallingRules
from virnucpro_pl.results.figures import RankFigures
from virnucpro_pl.results.input_notes import input_warnings
from virnucpro_pl.results.parts import PartsOfModel
from virnucpro_pl.results.publishing import publish
from virnucpro_pl.results.starts import Starts
from virnucpro_pl.results.summary import DEMO_WARNING, merge_figures, summary_lines
from virnucpro_pl.results.tables import RECORD_TABLE, RESULT_FILES
from virnucpro_pl.stages import StageClock
from virnucpro_pl.standard_output import copy_to_standard_output

log = logging.getLogger(__name__)


def predict(cfg: DictConfig) -> float:
    """Run a prediction as configured.

    Returns:
        Tokens per second of both encoders together over the time of prediction, what a sweep maximises; NaN on ranks
        other than the first.

    Raises:
        UserError: something in the configuration, the input or the weights must be mended.
        OutOfMemoryError: the device's memory, or the host's, does not suffice.
        RankLostError: another process of the run is gone.
    """
    rules: CallingRules = instantiate(cfg.results)
    rules.check()
    clock = StageClock()
    trainer = build_trainer(cfg, clock)
    check_output_is_named(cfg, trainer)
    if not trainer.is_global_zero:
        logging.getLogger().setLevel(logging.WARNING)  # the first rank speaks for all
    run = _Run(cfg, trainer, clock)
    try:
        if first_rank_decides(trainer, run.prepare, run.folder.is_finished):
            run.embed_and_score()
            if trainer.is_global_zero:
                run.write_results(rules)
    except BaseException:
        end_ranks(trainer, failed=True)
        raise
    else:
        end_ranks(trainer, failed=False)
    finally:
        run.folder.leave()
    return run.tell() if trainer.is_global_zero else float("nan")


class _Run:
    """One prediction, from what its output folder holds to what it will hold."""

    def __init__(self, cfg: DictConfig, trainer: Trainer, clock: StageClock):
        self._began = time.time()
        self._cfg = cfg
        self._trainer = trainer
        self._output, self._work = Path(cfg.paths.output_dir), Path(cfg.paths.work_dir)
        self.folder = RunFolder(self._output, self._work, RESULT_FILES)
        self._figures = RankFigures(self._work / "figures")
        self._model: VirNucPro = instantiate(cfg.model, clock=clock)
        self._model.head_source.check_chunk_length(cfg.data.chunk_length)
        encoders = partial(
            identify_encoders, self._model, arithmetic_of(trainer, self._model), digest_memo(cfg.data.embedding_cache)
        )
        self._datamodule: FastaDataModule = instantiate(cfg.data, clock=clock, encoders=encoders)
        self._identity = settings_identity(cfg, trainer, self._model)
        self._weights: dict[str, Any] = {}

    def prepare(self) -> bool:
        """Read the input and make the output folder this run's; False if the run is finished already.

        Mistakes in weights, input and folder stop the run here, on the first rank, before other processes start.
        """
        self.folder.enter(self._cfg.overwrite)
        self.folder.check(self._identity)
        weights = self._model.identity()
        if self.folder.finished is not None:
            hashing = _start_hashing(weights, None)
            self._identity[INPUT] = self._datamodule.input_digests()
            self.folder.check(self._identity | _identity_of(hashing))
            self.folder.check_files()
            self.folder.clear_work()
            return False

        log.info("Device: %s", device_text(self._trainer))
        if self._model.demo:
            log.warning("Model %s: %s; choose another with model=…", self._model.name, DEMO_WARNING)
        self._figures.clear()
        memo = digest_memo(self._cfg.data.embedding_cache) or self._work / "digests.json"
        hashing = _start_hashing(weights, memo)
        if self.folder.is_taken and self._datamodule.can_be_read_twice():  # before hours go into storing another input
            self.folder.check({INPUT: self._datamodule.input_digests()})
        self._datamodule.prepare_data()
        self._identity |= {INPUT: self._datamodule.input_digests(), **_identity_of(hashing)}
        self._weights = {name: {**source, "sha256": hashing[name].result()} for name, source in weights.items()}
        self.folder.claim(self._identity)
        key = json.dumps(identity_of_scores(self._identity), sort_keys=True)
        self._datamodule.find_parts = PartsOfModel(self._work / "parts", key)
        return True

    def embed_and_score(self) -> None:
        """Let all ranks write their parts."""
        try:
            self._trainer.predict(self._model, datamodule=self._datamodule, return_predictions=False)
        except Exception as error:
            if is_out_of_memory(error) and not isinstance(error, OutOfMemoryError):
                raise OutOfMemoryError(_out_of_memory_text(self._trainer, self._datamodule)) from error
            if told := from_another_rank(error):
                raise told from error
            raise

    def write_results(self, rules: CallingRules) -> None:
        """Check that every planned ORF was scored exactly once, write the result files, and finish the run."""
        world_size = self._trainer.world_size
        stages, throughput = (self._figures.read(kind, world_size) for kind in ("stages", "throughput"))
        watch_of(self._trainer).stop()  # all have finished; signs of life would come into the folder as it is removed
        datamodule = self._datamodule
        if not hasattr(datamodule, "store"):  # the ranks were children of this process
            datamodule.trainer = self._trainer  # whose device decides on the plan
            datamodule.setup("predict")
        after = StageClock()
        inputs, manifest = datamodule.inputs, datamodule.store.manifest
        calls, files = publish(datamodule.store, inputs, datamodule.gather, self._work, self._output, rules, after)
        sources = zip(manifest["inputs"], inputs, calls.pop("files"), strict=True)
        counts = {key: value for key, value in manifest.items() if key not in ("format_version", "files", "settings")}
        counts["inputs"] = [{**source, "path": path, "calls": by_call} for source, path, by_call in sources]
        counts |= {"saved": datamodule.saved(), "calls": calls}
        starts = Starts(self._work).read()
        self.folder.finish(
            {
                **origin(self._cfg, self._began),
                "starts": starts,
                "resumed": len(starts) - 1,
                "warnings": _warnings(self._model, counts),
                "model": {"name": self._model.name, "demo": self._model.demo, "weights": self._weights},
                "engine": _engine(self._model, self._trainer, throughput),
                "counts": counts,
                "embedding_cache": self._cfg.data.embedding_cache,
                "figures": merge_figures(stages, throughput, datamodule.token_budget, after.seconds()),
                "files": files,
                "identity": self._identity,
            }
        )

    def tell(self) -> float:
        """Say what came out, also of a run that was finished before, and return its tokens per second."""
        run, finished = self.folder.finished, not self._datamodule.is_prepared
        assert run is not None
        if finished:
            log.info("Finished already, %s; nothing to do", run["started"])
        for line in summary_lines(run):
            log.info(escaped(line))
        for warning in run["warnings"]:
            if warning != DEMO_WARNING:  # the summary ends with it
                log.warning("Warning: %s", escaped(str(warning)))
        log.info("Results: %s (start with %s)", self._output, RECORD_TABLE)
        if self._cfg.output == "-":
            copy_to_standard_output(self._output / RECORD_TABLE)
        return float(run["figures"]["tokens_per_second"])


def _start_hashing(weights: dict[str, Any], memo: Path | None) -> dict[str, "Future[dict[str, str]]"]:
    """Hash the weight files while the input is read; a large one takes half a minute."""
    hasher = ThreadPoolExecutor(1)
    digests = {name: hasher.submit(sha256_of, Path(source["path"]), memo) for name, source in weights.items()}
    hasher.shutdown(wait=False)
    return digests


def _identity_of(hashing: dict[str, "Future[dict[str, str]]"]) -> dict[str, Any]:
    return weights_identity({name: digests.result() for name, digests in hashing.items()})


def _out_of_memory_text(trainer: Trainer, datamodule: FastaDataModule) -> str:
    """Say what would need less memory, and what is not lost."""
    text = f"out of memory on {trainer.strategy.root_device}"
    if not hasattr(datamodule, "plan"):  # the ranks were children of this process
        return f"{text}: give a smaller data.token_budget"
    if not trainer.predict_loop.batch_progress.total.ready:
        return f"{text} before the first batch: give a device with more memory, or trainer.precision=16-true"
    text += f" with data.token_budget={datamodule.token_budget}: give a smaller one"
    assert datamodule.parts is not None
    if done := datamodule.plan.num_batches - len(datamodule.parts.waiting_batches(datamodule.plan)):
        text += (
            f"; or, if other programs held the memory, start the same command again: it continues after the {done} of"
            f" {datamodule.plan.num_batches} batches that are done"
        )
    return text


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
    return [*([DEMO_WARNING] if model.demo else []), *input_warnings(counts)]
