"""Log lines of ``train`` about a split and a finished training."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.errors import escaped
from virnucpro_pl.files.output_files import HEAD_FILE
from virnucpro_pl.training.splits import PARTS, Split

log = logging.getLogger(__name__)

LEAKING = "split at random: pieces of one genome are trained on and tested, so the figures are too good"


def sizes_of(parts: NDArray[np.int8], labels: NDArray[np.uint8]) -> dict[str, dict[str, int]]:
    """Return the number of ORFs of each class in each split."""
    return {
        part: {
            name: int(((parts == number) & (labels == label)).sum()) for label, name in enumerate(("others", "virus"))
        }
        for number, part in enumerate(PARTS)
    }


def log_split(split: Split, parts: NDArray[np.int8], labels: NDArray[np.uint8]) -> None:
    """Log the size of each split, and warn of a random split."""
    for part, counts in sizes_of(parts, labels).items():
        groups = f" in {len(split.groups[part]):,} groups" if split.groups.get(part) and split.by != "split" else ""
        log.info("  %-10s %s viral ORFs, %s others%s", part, f"{counts['virus']:,}", f"{counts['others']:,}", groups)
    if split.num_dropped:
        log.info("  %s fragments skipped: an earlier split has their sequence", f"{split.num_dropped:,}")
    if split.leaks:
        log.warning("Warning: %s", LEAKING)


def log_result(run: Mapping[str, Any], output: Path) -> float:
    """Log the metrics of the best epoch and return its average precision."""
    figures = run["figures"]
    log.info(
        "Best epoch %d of %d: validation loss %.4f, average precision %.4f, AUROC %.4f, accuracy %.4f (single ORFs)",
        figures["epoch"] + 1,
        figures["epochs"],
        figures["val_loss"],
        figures["val_average_precision"],
        figures["val_auroc"],
        figures["val_accuracy"],
    )
    for warning in run["warnings"]:
        log.warning("Warning: %s", escaped(warning))
    log.info("Head: %s (test it with `test model.head.weights=%s`)", output / HEAD_FILE, output / HEAD_FILE)
    return float(figures["val_average_precision"])
