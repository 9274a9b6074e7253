"""Warnings about the input, and its lines of the summary."""

from typing import Any

from virnucpro_pl.runs.record_types import Counts
from virnucpro_pl.sequence.alphabet import is_worth_a_warning, odd_text
from virnucpro_pl.sequence.layout import NOT_NUCLEOTIDES
from virnucpro_pl.sequence.streams import shown_name

_SKIPPED = ("secondary", "supplementary")


def input_warnings(counts: dict[str, Any]) -> list[str]:
    """Return warnings about the input, from the counts of ``run.json``."""
    found = []
    if not counts["records"]:
        found.append("the input holds no records; the result files hold only headers")
    if repeats := counts["duplicate_names"]:
        suffix = counts["duplicate_suffix"]
        found.append(
            f"{repeats:,} records repeat the name of an earlier one; they are kept apart as"
            f" NAME{suffix}2, NAME{suffix}3, …"
        )
    if formulas := counts["formula_names"]:
        found.append(
            f"{formulas:,} records have names that begin with =, +, - or @, which a spreadsheet would run as formulas;"
            " import the tables with all columns as text (docs/security.md)"
        )
    for source in counts["inputs"]:
        found += _letter_warnings(source, counts["record_status"].get(NOT_NUCLEOTIDES, 0) > 0)
        if orphan := source.get("orphan"):
            found.append(
                f"{shown_name(source['path'])}: most reads are in pairs, but record {orphan['record']:,}"
                f" ({orphan['name']}) has no mate beside it, so all reads of the file are single; remove reads without"
                " mate to have the others as mates"
            )
    return found


def _letter_warnings(source: dict[str, Any], are_excluded: bool) -> list[str]:
    """Return warnings about letters of one input that are no nucleotides."""
    if "no_nucleotides" not in source or not is_worth_a_warning(source):
        return []
    text = f"{shown_name(source['path'])}: {odd_text(source)}"
    if not are_excluded:
        return [f"{text}; they count as bases (data.alphabet=any)"]
    return [
        f"{text}; {source['no_nucleotides']['records']:,} records with more than 0.1 % of them are not called (status"
        f" {NOT_NUCLEOTIDES}); correct the file, or give data.alphabet=any to call them as published"
    ]


def input_lines(counts: Counts) -> list[str]:
    """Return the lines of skipped alignments and of pairs for the summary."""
    inputs = counts["inputs"]
    skipped = {kind: sum(source.get("skipped", {}).get(kind, 0) for source in inputs) for kind in _SKIPPED}
    mates = [source["records"] for source in inputs if source["mates"]]
    lines = []
    if any(skipped.values()):
        text = " and ".join(f"{count:,} {kind}" for kind, count in skipped.items() if count)
        lines.append(f"  skipped as repeats of other reads: {text} alignments")
    if mates:
        lines.append(f"  mates: {sum(mates):,} records of {len(mates):,} files, named NAME/1 and NAME/2")
    return lines
