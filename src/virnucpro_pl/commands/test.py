"""The ``test`` command: metrics of a head on genomes that it was not trained on."""

import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from virnucpro_pl.configuration.hydra_config import build, value_of
from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.execution.dataset_embeddings import check_encoders, embeddings_of, files_of
from virnucpro_pl.execution.provenance import provenance
from virnucpro_pl.execution.trainer import build_score_trainer
from virnucpro_pl.files.durable import write_text
from virnucpro_pl.files.output_files import FILES, GROUPS, HEAD_FILE, LENGTHS, METRICS, RUN_FILE, SPLIT_FILE
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.models.weights.head_bundle import HeadInfo, write_head
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.results.publishing import files_in
from virnucpro_pl.results.summary import DEMO_WARNING
from virnucpro_pl.runs.run_folder import RunFolder, clear_results
from virnucpro_pl.training.calibration import choose_threshold, fit_temperature
from virnucpro_pl.training.evaluation import Figures, ScoredChunks, by_group, by_length, figures, recall_of_all
from virnucpro_pl.training.evaluation_plots import plot_all
from virnucpro_pl.training.labelled_store import LabelledStore
from virnucpro_pl.training.scoring import OrfMargins, chunks_of, join, score
from virnucpro_pl.training.splits import PARTS, TEST, VALIDATION, Split, apply_split, split_again

log = logging.getLogger(__name__)

_NOBODY = "none"
_MOST_LENGTHS = 4  # in the summary, which fits a terminal
_COLUMNS = ("chunks", "viral", "auroc", "average_precision", "recall", "precision", "false_positive_rate", "accuracy")


def test(cfg: DictConfig) -> float:
    """Test a head.

    Returns:
        Average precision of the tested split; NaN if it holds one class only.

    Raises:
        UserError: the configuration, the dataset or the head has a mistake.
    """
    began = time.monotonic()
    if cfg.part not in PARTS:
        raise UserError(f"part={cfg.part}: choose one of {', '.join(PARTS)}")
    run = _Run(cfg)
    output = Path(cfg.paths.output_dir)
    clear_results(output, FILES["test"], cfg.overwrite)
    margins = run.score_all(output)
    metrics = run.evaluate(margins, output)
    record = {**provenance(cfg, began), "warnings": metrics["warnings"], "figures": metrics["overall"]}
    record |= files_in(output, files_of(cfg, "test"))
    write_text(output / RUN_FILE, json.dumps(record, indent=2) + "\n")
    RunFolder(output, Path(cfg.paths.work_dir), ()).clear_work()
    for line in _summary(metrics, output):
        log.info("%s", escaped(line))
    for warning in metrics["warnings"]:
        log.warning("Warning: %s", warning)
    average_precision = metrics["overall"]["average_precision"]
    return float("nan") if average_precision is None else float(average_precision)


class _Run:
    """Run of one test."""

    def __init__(self, cfg: DictConfig):
        self._cfg = cfg
        self._clock = StageClock()
        self._source: HeadSource = build(cfg.model.head)
        info = self._source.info()
        if info is None:
            raise UserError(
                f"model.head.weights={self._source.weights}: not written by train, so its training genomes are unknown;"
                " train a head, or measure this one with predict"
            )
        self._info: HeadInfo = info
        self._head = self._source.load()
        self._inputs = build(cfg.model).inputs  # checked against the head
        self._model: VirNucPro = build(cfg.model, head=None, inputs=self._inputs, clock=self._clock)
        self._stores = [LabelledStore.checked(Path(path)) for path in _as_list(value_of(cfg, "input"))]
        self._splits = [self._split_of(store) for store in self._stores]

    def _split_of(self, store: LabelledStore) -> Split:
        if self._cfg.split == _NOBODY:
            return Split("genome", np.full(len(store.labels), TEST, dtype=np.int8), {})
        beside = self._source.path.with_name(SPLIT_FILE)
        path = beside if self._cfg.split is None else Path(self._cfg.split)
        if self._cfg.split is None and not beside.is_file():
            raise UserError(f"{beside}: missing; give split=FILE, or give split=none for genomes never seen")
        if self._info.training.get("leaking") and self._info.data.get("key") == store.dataset["key"]:
            return split_again(store, self._info.training)
        return apply_split(store, path)

    def score_all(self, output: Path) -> list[OrfMargins]:
        """Score every dataset."""
        given = (
            _as_list(value_of(self._cfg, "embeddings"))
            if self._cfg.embeddings is not None
            else [None] * len(self._stores)
        )
        if len(given) != len(self._stores):
            raise UserError(f"embeddings: {len(given)} folders for {len(self._stores)} datasets; give one of each")
        found = []
        for number, (store, split, folder) in enumerate(zip(self._stores, self._splits, given, strict=True)):
            computed = output / "embeddings" / (str(number) if len(given) > 1 else "")
            embeddings = embeddings_of(self._cfg, store, self._model, self._clock, folder, computed)
            check_encoders(embeddings, self._info, str(self._source.weights))
            found.append(score(build_score_trainer(self._cfg), self._head, self._inputs, store, embeddings, split))
        return found

    def evaluate(self, margins: list[OrfMargins], output: Path) -> dict[str, Any]:
        """Write metrics, plots and the head, and return the metrics."""
        cfg, part = self._cfg, PARTS.index(self._cfg.part)
        temperature = self._temperature(margins)
        validation = self._chunks(margins, VALIDATION, temperature)
        chunks = self._chunks(margins, part, temperature)
        if not len(chunks.labels):
            raise UserError(f"part={cfg.part}: no chunk of these datasets with an ORF is in it; see split.json")
        threshold = self._threshold(validation)
        uncalibrated = self._chunks(margins, part, 1.0) if temperature != 1.0 else None
        lengths = {str(k): v for k, v in by_length(chunks, threshold, cfg.resamples, cfg.seed).items()}
        metrics: dict[str, Any] = {
            "head": str(self._source.weights),
            "part": cfg.part,
            "datasets": [
                {"input": str(s.folder), "key": s.dataset["key"], "counts": s.dataset["counts"]} for s in self._stores
            ],
            "split_by": self._splits[0].by,
            "threshold": threshold,
            "temperature": temperature,
            "overall": figures(chunks, threshold, cfg.resamples, cfg.seed),
            "validation": figures(validation, threshold) if len(validation.labels) else None,
            "uncalibrated": figures(uncalibrated, threshold) if uncalibrated else None,
            "share_with_orf": _share_with_orf(self._stores),
            "recall_of_all": self._recall_of_all(margins, part, temperature, threshold),
            "by_length": lengths,
            "by_group": by_group(chunks, threshold),
            "warnings": self._warnings(),
        }
        write_text(output / METRICS, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        write_text(output / GROUPS, _tsv(metrics["by_group"], tuple(metrics["by_group"][0])))
        rows = [{"length": length, **{name: one[name] for name in _COLUMNS}} for length, one in lengths.items()]
        write_text(output / LENGTHS, _tsv(rows, ("length", *_COLUMNS)))
        plot_all(output, chunks, metrics, cfg.part, uncalibrated)
        self._write_head(output, lengths, threshold, temperature)
        return metrics

    def _chunks(self, margins: list[OrfMargins], part: int, temperature: float) -> ScoredChunks:
        return join([chunks_of(one, part, temperature, _cluster_column(one.split)) for one in margins])

    def _temperature(self, margins: list[OrfMargins]) -> float:
        if not self._cfg.calibrate:
            return 1.0
        values, labels = [], []
        for one in margins:
            orfs = np.flatnonzero(one.split.parts[one.store.orf_records] == VALIDATION)
            values.append(one.values[orfs])
            labels.append(one.store.labels[one.store.orf_records[orfs]])
        known = np.concatenate(labels)
        return fit_temperature(np.concatenate(values), known) if 0 < known.sum() < len(known) else 1.0

    def _threshold(self, validation: ScoredChunks) -> float:
        threshold = self._cfg.threshold
        if threshold.precision is None and threshold.false_positive_rate is None:
            value = self._info.threshold if threshold.value is None else threshold.value
            if not 0 < value < 1:
                raise UserError(f"threshold.value={value}: give a score between 0 and 1; 0.5 is the published rule")
            return float(value)
        if threshold.value is not None:
            raise UserError("threshold: give value, or precision and false_positive_rate, not both")
        if not 0 < validation.labels.sum() < len(validation.labels):
            raise UserError("threshold: no validation split with both classes to choose it on; give threshold.value")
        return choose_threshold(
            validation.scores, validation.labels, threshold.precision, threshold.false_positive_rate
        )

    def _recall_of_all(
        self, margins: list[OrfMargins], part: int, temperature: float, threshold: float
    ) -> float | None:
        """Return the recall over all viral fragments, of which those without ORF count as missed."""
        chunks = [self._chunks([one], part, temperature) for one in margins]
        shares = [_share_with_orf([one.store])["virus"] for one in margins]
        return recall_of_all(chunks, shares, threshold)

    def _warnings(self) -> list[str]:
        found = [DEMO_WARNING] if self._info.demo else []
        if self._info.training.get("leaking"):
            found.append("trained on a random split: these figures are too good where genomes are the same")
        if self._cfg.part == "train":
            found.append("tested on what it was trained on")
        return found

    def _write_head(self, output: Path, lengths: dict[str, Figures], threshold: float, temperature: float) -> None:
        """Write the head with its threshold, calibration and test metrics."""
        layer = self._head.output_layer
        layer.weight.data /= temperature
        layer.bias.data /= temperature
        names = ("chunks", "auroc", "average_precision", "recall", "precision", "false_positive_rate", "intervals")
        tested = {length: {name: one.get(name) for name in names} for length, one in lengths.items()}
        info = replace(
            self._info,
            threshold=threshold,
            temperature=self._info.temperature * temperature,
            tested=self._info.tested | tested if self._cfg.part == "test" else self._info.tested,
        )
        write_head(output, self._head, info)


def _share_with_orf(stores: list[LabelledStore]) -> dict[str, float]:
    """Return the share of fragments with an ORF, by class."""
    shares = {}
    for name in ("virus", "others"):
        counts = [store.dataset["counts"][name] for store in stores]
        fragments = sum(count["fragments"] - count["ambiguous"] for count in counts)
        without = sum(count["without_orf"] for count in counts)
        shares[name] = round(1 - without / fragments, 4) if fragments else 0.0
    return shares


def _cluster_column(split: Split) -> str:
    """Return the column of the groups that are resampled as a whole."""
    return "genome" if split.leaks else "group" if split.by == "split" else split.by


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _tsv(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Format rows as a table separated by tabs."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(_cell(value) for value in row.values()) for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "NA"
    return f"{value:.6f}" if isinstance(value, float) else escaped(str(value)).replace("\t", " ")


def _summary(metrics: dict[str, Any], output: Path) -> list[str]:
    overall = metrics["overall"]
    lines = [
        f"{metrics['part']}: {overall['chunks']:,} chunks with an ORF, {overall['viral']:,} viral; 95 % confidence"
        f" intervals by resampling {overall.get('resampled', 'nothing')}"
    ]
    for name, label in (
        ("auroc", "AUROC"),
        ("average_precision", "average precision"),
        ("recall", "recall"),
        ("precision", "precision"),
        ("false_positive_rate", "false-positive rate"),
    ):
        if overall[name] is not None:
            low, high = overall.get("intervals", {}).get(name, (None, None))
            interval = f"  ({low:.3f} to {high:.3f})" if low is not None else ""
            lines.append(f"  {label:<20} {overall[name]:.3f}{interval}")
    lines.append(f"  at a threshold of {metrics['threshold']:.3f}; temperature {metrics['temperature']:.3f}")
    for length, one in list(metrics["by_length"].items())[:_MOST_LENGTHS]:
        lines.append(
            f"  about {length} nt: AUROC {one['auroc']:.3f}, recall {one['recall']:.3f}, {one['chunks']:,} chunks"
        )
    if (more := len(metrics["by_length"]) - _MOST_LENGTHS) > 0:
        lines.append(f"  {more} more lengths: {output / LENGTHS}")
    shares, of_all = metrics["share_with_orf"], metrics["recall_of_all"]
    lines.append(
        f"  of all fragments {shares['virus']:.1%} of the viral and {shares['others']:.1%} of the others have an ORF;"
        " the rest cannot be scored" + (f": recall of all about {of_all:.3f}" if of_all is not None else "")
    )
    lines.append(f"Figures: {output / METRICS}; head to use: {output / HEAD_FILE}")
    return lines
