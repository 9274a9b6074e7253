"""What a reader of the results should know of the input: warnings, and lines of the summary."""

from typing import Any

_SKIPPED = ("secondary", "supplementary")


def input_warnings(counts: dict[str, Any]) -> list[str]:
    """Warn of what the input holds, from the counts of ``run.json``."""
    found = []
    if not counts["records"]:
        found.append("the input holds no records; the result files hold their headers only")
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
    return found


def input_lines(counts: dict[str, Any]) -> list[str]:
    """Render what was left out and what was paired, for the summary."""
    inputs = counts["inputs"]
    skipped = {kind: sum(source.get("skipped", {}).get(kind, 0) for source in inputs) for kind in _SKIPPED}
    mates = [source["records"] for source in inputs if source["mates"]]
    lines = []
    if any(skipped.values()):
        told = " and ".join(f"{count:,} {kind}" for kind, count in skipped.items() if count)
        lines.append(f"  left out as repeats of other reads: {told} alignments")
    if mates:
        lines.append(f"  mates: {sum(mates):,} records of {len(mates):,} files, named NAME/1 and NAME/2")
    return lines
