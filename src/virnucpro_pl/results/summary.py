"""Metrics of a run, for the log and ``run.json``."""

from typing import Any, cast

from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2, STAGES
from virnucpro_pl.results.input_notes import input_lines
from virnucpro_pl.runs.record_types import Calls, EncoderMetrics, Metrics, RunRecord

DEMO_WARNING = "demo model, not for science"
CALLED = ("called", "dna_only")
"""Statuses of records with a call"""
COUNTED = (
    "batches",
    "orfs",
    *(f"{encoder}_{unit}" for encoder in ("dna", "protein") for unit in ("sequences", "cached", "tokens", "processed")),
)
"""Counts of each rank"""


def merge_metrics(
    stages: list[dict[str, float]], throughput: list[dict[str, Any]], token_budget: int, host: dict[str, float]
) -> Metrics:
    """Merge the metrics of all ranks.

    The time of a stage is that of the slowest rank. Packing efficiency is the share of processed tokens that are not
    padding; budget fill is the mean number of protein tokens of a batch over the budget.

    Args:
        stages: seconds of each stage of each rank.
        throughput: counts, waiting times and memory of each rank.
        token_budget: most protein tokens in a batch.
        host: seconds of the stages after prediction.
    """
    seconds = {stage: max(rank[stage] for rank in stages) + host.get(stage, 0.0) for stage in STAGES}
    total = sum(seconds.values())
    sums = {key: sum(rank[key] for rank in throughput) for key in COUNTED}
    batches = sums["batches"]
    predict_seconds = max(rank["seconds"] for rank in throughput)
    tokens = sums["dna_tokens"] + sums["protein_tokens"]
    waits = sum(rank["wait_seconds"] for rank in throughput)
    memory = [rank["peak_memory_bytes"] for rank in throughput]
    utilisation = [rank["gpu_utilisation"] for rank in throughput if rank.get("gpu_utilisation") is not None]
    return {
        "stages": {
            stage: {"seconds": round(taken, 6), "share": round(taken / total, 4) if total else 0.0}
            for stage, taken in seconds.items()
        },
        "predict_seconds": round(predict_seconds, 3),
        "tokens_per_second": round(tokens / predict_seconds, 1) if predict_seconds else 0.0,
        "sequences_per_second": round(sums["orfs"] / predict_seconds, 1) if predict_seconds else 0.0,
        "token_budget": token_budget,
        "batches": batches,
        "embedded_orfs": sums["orfs"],
        "encoders": {
            name: _encoder(throughput, stages, sums, key, name)
            for name, key in ((DNABERT_S, "dna"), (ESM2, "protein"))
            if sums[f"{key}_sequences"]
            or sums[f"{key}_cached"]
            or not sums["orfs"]  # otherwise the encoder is not used
        },
        "packing_efficiency": _share(tokens, sums["dna_processed"] + sums["protein_processed"]),
        "budget_fill": min(1.0, _share(sums["protein_tokens"], batches * token_budget)),
        "wait_mean_ms": round(1000 * waits / batches, 3) if batches else 0.0,
        "wait_max_ms": round(1000 * max(rank["max_wait_seconds"] for rank in throughput), 3),
        "wait_share": _share(waits, sum(rank["seconds"] for rank in throughput)) if batches else 0.0,
        "peak_memory_bytes": max(memory),
        "gpu_utilisation_percent": round(sum(utilisation) / len(utilisation), 1) if utilisation else None,
        "gpu_peak_memory_bytes": max(rank.get("gpu_peak_memory_bytes", 0) for rank in throughput) or None,
        "devices": [rank.get("gpu_name", rank["device"]) for rank in throughput],
    }


def _encoder(
    throughput: list[dict[str, Any]], stages: list[dict[str, float]], sums: dict[str, int], key: str, name: str
) -> EncoderMetrics:
    return {
        "sequences": sums[f"{key}_sequences"],
        "cached": sums[f"{key}_cached"],
        "tokens": sums[f"{key}_tokens"],
        "tokens_per_second": _rate(throughput, stages, f"{key}_tokens", name),
        "sequences_per_second": _rate(throughput, stages, f"{key}_sequences", name),
        "packing_efficiency": _share(sums[f"{key}_tokens"], sums[f"{key}_processed"]),
    }


def _rate(throughput: list[dict[str, Any]], stages: list[dict[str, float]], key: str, stage: str) -> float:
    """Return the sum over ranks of units per second of the stage."""
    pairs = zip(throughput, stages, strict=True)
    return round(float(sum(rank[key] / taken[stage] for rank, taken in pairs if taken[stage] > 0)), 1)


def _share(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 1.0


def summary_lines(run: RunRecord) -> list[str]:
    """Return the lines of the summary of a run."""
    counts, figures = run["counts"], run["figures"]
    saved = counts["saved"]
    unique_orfs = counts["orfs"] - saved["orfs"]
    lines = ["Stages"]
    for number, (stage, taken) in enumerate(figures["stages"].items(), start=1):
        lines.append(f"  {number}. {stage:<21} {taken['seconds']:>10.2f} s  {taken['share']:>6.1%}")
    lines.append("Encoders")
    for name, encoder in figures["encoders"].items():
        lines.append(
            f"  {name:<10} {encoder['tokens_per_second']:>12,.0f} tokens/s {encoder['sequences_per_second']:>10,.1f}"
            f" sequences/s, {encoder['tokens']:,} tokens, packing efficiency {encoder['packing_efficiency']:.1%}"
        )
    lines += [
        f"  both       {figures['tokens_per_second']:>12,.0f} tokens/s {figures['sequences_per_second']:>10,.1f}"
        " sequences/s during prediction",
        f"  packing efficiency {figures['packing_efficiency']:.1%}, token budget of {figures['token_budget']:,} filled"
        f" {figures['budget_fill']:.1%} over {figures['batches']} batches",
        f"  waiting for data: mean {figures['wait_mean_ms']:.1f} ms, max {figures['wait_max_ms']:.1f} ms per batch"
        f" ({figures['wait_share']:.1%} of the time)",
        f"  repeated ORFs embedded once: {saved['orfs']:,} of {counts['orfs']:,} saved",
        f"  proteins of different ORFs embedded once: {saved['proteins']:,} of {unique_orfs:,} saved",
        *_cache_lines(run),
        f"  peak memory {figures['peak_memory_bytes'] / 2**20:,.0f} MiB per process" + _gpu_text(figures),
        "Input",
        f"  {counts['records']:,} records, {counts['bases']:,} bases = {_statuses(counts['record_status'])}",
        *input_lines(counts),
        f"  {counts['chunks']:,} chunks = {_statuses(counts['chunk_status'])}",
        f"  {counts['orfs']:,} ORFs, {counts['calls']['orfs']['virus']:,} of them viral",
        "Calls",
        f"  records: {_calls(counts['calls']['records'])}",
        f"  chunks: {_calls(counts['calls']['chunks'])}",
    ]
    if run["model"]["demo"]:
        lines.append(f"  {DEMO_WARNING.upper()}: these calls come from the {DEMO_WARNING}")
    return lines


def found_line(run: RunRecord) -> str:
    """Return the numbers of calls as one line."""
    calls, statuses = run["counts"]["calls"]["records"], run["counts"]["record_status"]
    why = ", ".join(f"{count:,} {status}" for status, count in statuses.items() if count and status not in CALLED)
    parts = [f"{calls['others']:,} not"]
    parts += [f"{calls['ambiguous']:,} undecided"] if calls["ambiguous"] else []
    parts += [f"{calls['not_called']:,} not called ({why})"] if calls["not_called"] else []
    return f"Found: {calls['virus']:,} of {run['counts']['records']:,} records viral, {', '.join(parts)}"


def _cache_lines(run: RunRecord) -> list[str]:
    if run["embedding_cache"] is None:
        return []
    found = [
        f"{encoder['cached']:,} of {encoder['cached'] + encoder['sequences']:,} sequences for {name}"
        for name, encoder in run["figures"]["encoders"].items()
    ]
    return [f"  found in the embedding cache: {', '.join(found)}"]


def _gpu_text(figures: Metrics) -> str:
    if figures["gpu_peak_memory_bytes"] is None:
        return ""
    text = f", {figures['gpu_peak_memory_bytes'] / 2**30:.1f} GiB on the GPU"
    used = figures["gpu_utilisation_percent"]
    return text + (f", GPU utilisation {used:.0f} %" if used is not None else "")


def _statuses(counts: dict[str, int]) -> str:
    return " + ".join(f"{count:,} {status}" for status, count in counts.items() if count) or "none"


def _calls(counts: Calls) -> str:
    numbers = cast("dict[str, int]", counts)
    return ", ".join(f"{count:,} {call.replace('_', ' ')}" for call, count in numbers.items() if count) or "none"
