"""The ``verify`` command: check that the results in a folder are complete, consistent and unchanged."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from virnucpro_pl.errors import DamagedResultsError, UserError, escaped
from virnucpro_pl.files.output_files import RUN_FILE
from virnucpro_pl.reporting.format_checks import format_disagreements
from virnucpro_pl.results.agreement import disagreements
from virnucpro_pl.results.run_check import count_mistakes, finished_run
from virnucpro_pl.results.verification import damage, input_state, miscounts
from virnucpro_pl.runs.record_types import RunRecord

log = logging.getLogger(__name__)


def verify(cfg: DictConfig) -> float:
    """Check the files of a finished ``predict`` and return their number.

    Raises:
        UserError: the folder holds no run, or a damaged run record.
        DamagedResultsError: the run is not finished, or a file is missing, changed, or contradicts another one.
    """
    if not cfg.output:
        raise UserError("output: give the folder to verify: output=FOLDER")
    folder = Path(cfg.output)
    run = finished_run(folder, "verify")
    found = dict(damage(folder, run))
    damaged = [name for name, mistake in found.items() if mistake]
    mistakes = {} if damaged else _contradictions(folder, run)
    for name, mistake in {**found, **mistakes}.items():
        log.log(logging.ERROR if mistake else logging.INFO, "  %-40s %s", escaped(name), mistake or "ok")
    for source in run["counts"]["inputs"]:
        log.info("  input %s: %s", escaped(source["path"]), input_state(source))
    if damaged:
        names = escaped(", ".join(damaged))
        raise DamagedResultsError(f"{folder}: {names} not as written; run predict again, overwrite=true")
    if mistakes:
        raise DamagedResultsError(f"{folder}: the files contradict each other; run predict again, overwrite=true")
    counts = run["counts"]
    numbers = f"{counts['records']:,} records, {counts['chunks']:,} chunks, {counts['orfs']:,} ORFs"
    log.info("Verified: %d files, %s", len(found), numbers)
    return float(len(found))


def _contradictions(folder: Path, run: RunRecord) -> dict[str, str]:
    """Return the contradictions by file; somebody may have changed checksums together with a file."""
    if wrong := "; ".join(count_mistakes(run["counts"])):
        return {RUN_FILE: wrong}
    mistakes = dict(miscounts(folder, run))
    return mistakes or dict(disagreements(folder, run)) or dict(format_disagreements(folder, run))
