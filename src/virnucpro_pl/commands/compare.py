"""The ``compare`` command: agreement of two runs."""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
from omegaconf import DictConfig
from pyarrow import csv

from virnucpro_pl.configuration.hydra_config import command
from virnucpro_pl.errors import DisagreementError, UserError, escaped
from virnucpro_pl.files.durable import replacing, write_text
from virnucpro_pl.files.output_files import COMPARISON, FILES, MISMATCHES
from virnucpro_pl.results.compared_table import MODES, read_call_table
from virnucpro_pl.results.comparison import Comparison
from virnucpro_pl.results.comparison_plot import plot_comparison
from virnucpro_pl.results.publishing import files_in
from virnucpro_pl.runs.output_folder import make_output_folder

log = logging.getLogger(__name__)


def compare(cfg: DictConfig) -> float:
    """Compare two tables of calls; write metrics, mismatches and a plot into the output folder.

    Returns:
        Share of the compared ids with the same label, 1 if no id is in both tables.

    Raises:
        UserError: a table is missing or of another mode, or both have no rows.
        DisagreementError: agreement is below ``min_agreement``, or ids are missing.
    """
    _check(cfg)
    reference, candidate = (read_call_table(Path(cfg[name]), cfg.mode, name) for name in ("reference", "candidate"))
    if not len(reference.ids) and not len(candidate.ids):
        raise UserError(f"reference={reference.path}, candidate={candidate.path}: both tables are empty")
    comparison = Comparison(reference, candidate, cfg.tolerance, cfg.borderline)
    metrics = comparison.metrics()
    warnings = comparison.warnings()
    output = Path(cfg.paths.output_dir)
    make_output_folder(output)
    for name in FILES["compare"]:
        (output / name).unlink(missing_ok=True)  # of an earlier comparison
    shown = {"command": command(), "mode": cfg.mode, "reference": str(reference.path), "candidate": str(candidate.path)}
    settings = {"tolerance": cfg.tolerance, "borderline": cfg.borderline}
    _write_table(output / MISMATCHES, comparison.mismatches(cfg.mismatch_limit))
    plot = plot_comparison(output, comparison, cfg.tolerance, f"{cfg.mode}: {metrics['compared']:,} ids in both")
    record = {**shown, **settings, "warnings": warnings, "figures": metrics, **files_in(output, FILES["compare"])}
    write_text(output / COMPARISON, json.dumps(record, indent=2) + "\n")

    for line in _lines(cfg, metrics):
        log.info(escaped(line))
    for warning in warnings:
        log.warning("Warning: %s", escaped(warning))
    log.info(
        "Results: %s (%s, %s%s)", output, COMPARISON, MISMATCHES, f", {plot.name}" if plot else "; no scores to plot"
    )
    _judge(cfg, metrics)
    return 1.0 if metrics["label_agreement"] is None else float(metrics["label_agreement"])


def _check(cfg: DictConfig) -> None:
    for name in ("reference", "candidate"):
        if not cfg[name]:
            raise UserError(f"{name}: give a folder of results, or one of its tables: {name}=FOLDER")
    if cfg.mode not in MODES:
        raise UserError(f"mode={cfg.mode}: choose one of {', '.join(MODES)}")
    for key in ("tolerance", "borderline"):
        if not 0 <= cfg[key] <= 1:
            raise UserError(f"{key}={cfg[key]}: give a difference of scores between 0 and 1")
    for key in ("min_agreement", "min_clear_agreement"):
        if cfg[key] is not None and not 0 <= cfg[key] <= 1:
            raise UserError(f"{key}={cfg[key]}: give a share between 0 and 1")
    if cfg.mismatch_limit is not None and cfg.mismatch_limit < 0:
        raise UserError(f"mismatch_limit={cfg.mismatch_limit}: give a number of rows, or null for all")


def _write_table(path: Path, table: pa.Table) -> None:
    """Write text separated by tabs, without quotes, as ids contain no tabs."""
    with replacing(path) as unfinished:
        options = csv.WriteOptions(delimiter="\t", quoting_style="none", include_header=False)
        with unfinished.open("wb") as stream:
            stream.write("\t".join(table.column_names).encode() + b"\n")
            text = [column.cast(pa.string()).fill_null("NA") for column in table.columns]
            csv.write_csv(pa.table(text, names=table.column_names), stream, options)


def _lines(cfg: DictConfig, metrics: dict[str, Any]) -> list[str]:
    lines = [
        f"Reference: {cfg.reference} ({metrics['reference']:,} rows)",
        f"Candidate: {cfg.candidate} ({metrics['candidate']:,} rows)",
        f"  compared ids           {metrics['compared']:>14,}",
        f"  missing in candidate   {metrics['missing_in_candidate']:>14,}",
        f"  missing in reference   {metrics['missing_in_reference']:>14,}",
        f"  same label             {metrics['same_label']:>14,}  {_percent(metrics['label_agreement'])}",
    ]
    if labels := metrics.get("mismatches"):
        lines += [
            f"  other label, borderline{labels['borderline']:>14,}  within {cfg.borderline:g} of the threshold in both",
            f"  other label, clear     {labels['clear']:>14,}  agreement without the borderline ones"
            f" {_percent(metrics['clear_agreement'])}",
        ]
    for pair in metrics["labels"]:
        if pair["reference"] != pair["candidate"]:
            lines.append(f"    {pair['reference']} -> {pair['candidate']:<20} {pair['count']:>9,}")
    if (scores := metrics["scores"]) and scores["compared"]:
        lines += [
            f"  score differences: mean {scores['mean']:.3g}, median {scores['median']:.3g}, max {scores['max']:.3g},"
            f" std {scores['std']:.3g}",
            f"  within tolerance {cfg.tolerance:g}: {_percent(scores['within_tolerance'])}"
            + ("" if scores["correlation"] is None else f", correlation {scores['correlation']:.6f}"),
        ]
    return lines


def _judge(cfg: DictConfig, metrics: dict[str, Any]) -> None:
    missing = metrics["missing_in_candidate"] + metrics["missing_in_reference"]
    found = []
    if missing:
        found.append(f"{missing:,} ids are on one side only")
    if metrics["scores"] and (unscored := metrics["scores"]["missing"]):
        found.append(f"{unscored:,} called ids have no score in one of the runs")
    for key, wanted in (("label_agreement", "min_agreement"), ("clear_agreement", "min_clear_agreement")):
        if cfg[wanted] is not None and metrics.get(key) is not None and metrics[key] < cfg[wanted]:
            found.append(f"{key.replace('_', ' ')} {_percent(metrics[key])} is below {wanted}={cfg[wanted]}")
    if found:
        raise DisagreementError(f"{'; '.join(found)}; see {Path(cfg.paths.output_dir) / MISMATCHES}")
    log.info("The runs agree")


def _percent(share: float | None) -> str:
    """Format a share; only 1 appears as 100 %."""
    if share is None:
        return "none to compare"
    text = f"{share:.4%}"
    return "just under 100 %" if text == "100.0000%" and share < 1 else text
