"""The ``verify`` command: whether the results in a folder are complete, and those that were written."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from virnucpro_pl.errors import DamagedResultsError, UserError, escaped
from virnucpro_pl.output_files import RUN_FILE
from virnucpro_pl.results.run_record import read_run_record
from virnucpro_pl.results.verification import input_state, verify_files

log = logging.getLogger(__name__)


def verify(cfg: DictConfig) -> float:
    """Check the files of a finished ``predict``; return how many there are.

    Raises:
        UserError: the folder holds no run.
        DamagedResultsError: the run is not finished, or a file is missing or not what was written.
    """
    if not cfg.output:
        raise UserError("output: name the folder to verify: output=FOLDER")
    folder = Path(cfg.output)
    run = read_run_record(folder)
    if run is None:
        if (folder / ".work").is_dir():
            raise DamagedResultsError(f"{folder}: the run is not finished; give its command again to continue it")
        raise UserError(f"{folder}: no results here ({RUN_FILE} is missing); name the output folder of a predict")
    if not {"files", "counts"} <= run.keys():
        raise UserError(f"{folder}: {RUN_FILE} is that of another command or version; its files cannot be verified")

    found = list(verify_files(folder, run))
    for name, mistake in found:
        log.log(logging.ERROR if mistake else logging.INFO, "  %-40s %s", escaped(name), mistake or "ok")
    for source in run["counts"]["inputs"]:
        log.info("  input %s: %s", escaped(source["path"]), input_state(source))
    if damaged := [name for name, mistake in found if mistake]:
        raise DamagedResultsError(f"{folder}: {', '.join(damaged)} not as written; run predict again, overwrite=true")
    counts = run["counts"]
    log.info(
        "Verified: %d files, %s records, %s chunks, %s ORFs", len(found), *(f"{counts[key]:,}" for key in _COUNTED)
    )
    return float(len(found))


_COUNTED = ("records", "chunks", "orfs")
