"""The ``predict`` command."""

import itertools
import logging
from functools import partial
from pathlib import Path
from typing import Any, cast

from lightning import Trainer
from omegaconf import DictConfig

from virnucpro_pl.cli.preflight import uses_sample
from virnucpro_pl.configuration.hydra_config import build
from virnucpro_pl.distributed.first_rank import check_output_is_named
from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.execution.calling import checked_head, rules_of
from virnucpro_pl.execution.encoder_run import EncoderRun
from virnucpro_pl.execution.provenance import provenance
from virnucpro_pl.execution.trainer import build_trainer
from virnucpro_pl.files.digests import file_facts
from virnucpro_pl.files.output_files import FIGURE_FILES, FORMAT_FILES, RECORD_TABLE, REPORT, RESULT_FILES, VIRAL_FASTA
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.host.standard_output import copy_to_standard_output
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.reporting.formats import EXTRA_FILES, Formats
from virnucpro_pl.results.consensus import PUBLISHED_THRESHOLD, CallingRules
from virnucpro_pl.results.input_notes import input_warnings
from virnucpro_pl.results.publishing import publish
from virnucpro_pl.results.run_check import finished_run
from virnucpro_pl.results.summary import DEMO_WARNING, found_line, merge_metrics, summary_lines
from virnucpro_pl.runs.fingerprint import THRESHOLD
from virnucpro_pl.runs.output_folder import check_added
from virnucpro_pl.runs.record_types import Counts, Engine, Fingerprint, RunRecord
from virnucpro_pl.runs.score_shards import ScoreShards
from virnucpro_pl.runs.starts import Starts

log = logging.getLogger(__name__)


def predict(cfg: DictConfig) -> float:
    """Call the sequences of the input viral or not.

    Returns:
        Tokens per second of both encoders together during prediction, which a sweep maximises; NaN on ranks other than
        the first.

    Raises:
        UserError: the configuration, the input or the weights have a mistake.
        OutOfMemoryError: the device or the host has too little memory.
        RankLostError: another process of the run is gone.
    """
    clock = StageClock()
    trainer = build_trainer(cfg, clock)
    check_output_is_named(cfg, trainer)
    return _Run(cfg, trainer, clock, build(cfg.results)).run()


class _Run(EncoderRun):
    """Run of one prediction."""

    def __init__(self, cfg: DictConfig, trainer: Trainer, clock: StageClock, rules: CallingRules):
        rules.check()  # before the weights are read
        model: VirNucPro = build(cfg.model, clock=clock)
        self._head = checked_head(model, cfg.data.chunk_length)
        self._rules = rules_of(rules, self._head)
        output, work = Path(cfg.paths.output_dir), Path(cfg.paths.work_dir)
        extra_files = (*EXTRA_FILES, *FIGURE_FILES)
        shards = ScoreShards(work / "parts")
        super().__init__(cfg, trainer, clock, model, RESULT_FILES, output, work, extra_files, shards)
        self._shards = shards
        self._formats: Formats = build(cfg.formats)
        self._formats.check(self.source.inputs)
        self.fingerprint[THRESHOLD] = self._rules.limit
        self._head_warnings: list[str] = []

    def prepare(self) -> bool:
        """Prepare the run; check the record of a finished one before its summary is logged."""
        if super().prepare():
            return True
        finished_run(self.output, "predict")
        return False

    def check_inputs(self, digests: dict[str, list[str]]) -> None:
        """Refuse encoders with which the head was not trained."""
        sources = (self._head, *([self.model.fallback_source] if self.model.fallback_source else []))
        self._head_warnings = [warning for source in sources if (warning := source.check_encoders(digests))]

    def write_results(self) -> None:
        """Gather the scores of every ORF, write the result files and finish the run."""
        stages, throughput = self.rank_metrics()
        datamodule = self.datamodule
        inputs, manifest = self.source.inputs, datamodule.store.manifest
        after = StageClock()
        repeats = datamodule.duplicates.blocks() if datamodule.duplicates else ()
        gather = partial(self._shards.gather, datamodule.plan, repeats)
        calls, files = publish(datamodule.store, inputs, gather, self.work, self.output, self._rules, after)
        sources = zip(manifest["inputs"], inputs, calls.pop("files"), strict=True)
        counts = {key: value for key, value in manifest.items() if key not in ("format_version", "files", "settings")}
        counts["inputs"] = [{**source, "path": path, "calls": by_call} for source, path, by_call in sources]
        counts |= {"saved": datamodule.saved(), "calls": calls}
        starts = Starts(self.work).read()
        run: RunRecord = {
            **provenance(self.cfg, self.began),
            "starts": starts,
            "resumed": max(0, len(starts) - 1),
            "warnings": self._warnings(counts),
            "model": {
                "name": self.model.name,
                "demo": self.model.demo,
                "head": self._head_facts(),
                "weights": self.weights,
            },
            "engine": cast("Engine", self.engine(throughput)),
            "counts": cast("Counts", counts),
            "embedding_cache": self.cfg.data.embedding_cache,
            "figures": merge_metrics(stages, throughput, datamodule.token_budget, after.seconds()),
            "files": files,
            "identity": cast("Fingerprint", self.fingerprint),
            "formats": {},
        }
        try:
            self._add_formats(run, datamodule.store.folder)
        except UserError:  # an input was changed or removed; the result files do not need it
            self.folder.finish(run)
            raise
        self.folder.finish(run)

    def _add_formats(self, run: RunRecord, store: Path | None) -> bool:
        """Write the files of the requested formats that are missing; return whether there were any.

        Args:
            run: run record, to which the files are added.
            store: ORF store; None if it was removed.
        """
        there = {
            name: files
            for name, files in run.get("formats", {}).items()
            if all((self.output / f).exists() for f in files)
        }
        missing = self._formats.missing(there)
        added = itertools.chain.from_iterable(files for name, files in FORMAT_FILES.items() if getattr(missing, name))
        run["formats"] = dict(there)
        if self.folder.finished:
            check_added(self.output, added)
        for key, names in missing.write(self.output, run, self.source.inputs, store):
            run["formats"][key] = names
            run["files"] |= {name: file_facts(self.output / name) for name in names}
        return any(missing)

    def _head_facts(self) -> dict[str, Any]:
        """Return the chunk lengths, the threshold and the test metrics of the head."""
        info, trained = self._head.info(), self._head.trained_chunk_length()
        return {
            "chunk_lengths": info.chunk_lengths if info else [trained] * 2 if trained else None,
            "threshold": self._rules.limit,
            "tested": info.tested if info else {},
        }

    def _warnings(self, counts: dict[str, Any]) -> list[str]:
        """Return the warnings that readers of the results need."""
        found = [*([DEMO_WARNING] if self.model.demo else []), *self._head_warnings, *input_warnings(counts)]
        if short := counts["calls"]["out_of_domain"]:
            found.append(
                f"{short:,} of {counts['records']:,} records are shorter than {self._rules.domain_length} nt, 0.6 of"
                " what the head was trained or tested on: their calls are guesses (column out_of_domain); train a head"
                " for such reads"
            )
        if self._rules.limit != PUBLISHED_THRESHOLD:
            found.append(f"a chunk is viral from a score of {self._rules.limit:.4f} on, not 0.5 as published")
        return found

    def report(self) -> float:
        """Log the summary, also of a run that was finished before, and return its tokens per second."""
        assert self.folder.finished is not None
        run, finished = cast("RunRecord", self.folder.finished), not self.source.is_prepared
        if finished and self._add_formats(run, None):
            self.folder.note(run)
            log.info("Finished already, %s; the missing formats were written", run["started"])
        elif finished:
            log.info("Finished already, %s; nothing to do", run["started"])
        for line in summary_lines(run):
            log.info(escaped(line))
        for warning in run["warnings"]:
            if warning != DEMO_WARNING:  # the summary ends with it
                log.warning("Warning: %s", escaped(str(warning)))
        if uses_sample(self.cfg):
            log.warning("NO INPUT WAS GIVEN: these are calls of the packaged sample; name your reads: input=FILE")
        log.info(found_line(run))
        start = REPORT if "report" in run["formats"] and self._formats.report else RECORD_TABLE
        log.info("Results: %s (start with %s; viral records: %s)", self.output, start, VIRAL_FASTA)
        if self.cfg.output == "-":
            copy_to_standard_output(self.output / RECORD_TABLE)
        return float(run["figures"]["tokens_per_second"])
