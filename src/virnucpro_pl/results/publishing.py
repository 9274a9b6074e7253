"""Publishing: the result files appear once all scores are there."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from virnucpro_pl.errors import DamagedResultsError
from virnucpro_pl.files.digests import FileFacts, file_facts
from virnucpro_pl.files.durable import announce, flush
from virnucpro_pl.files.output_files import RESULT_FILES, written_within
from virnucpro_pl.host.stage_clock import CONSENSUS, WRITING, StageClock
from virnucpro_pl.results.consensus import CallingRules
from virnucpro_pl.results.tables import write_results
from virnucpro_pl.runs.record_types import RunRecord
from virnucpro_pl.runs.score_file import ScoreFile
from virnucpro_pl.sequence.store import OrfStore, check_unchanged


def check_results(folder: Path, run: RunRecord) -> None:
    """Raise DamagedResultsError if a result file of a finished run is missing or was changed.

    Args:
        folder: output folder.
        run: its run record.
    """
    for name in RESULT_FILES:
        if not (folder / name).is_file() or file_facts(folder / name) != run["files"].get(name):
            raise DamagedResultsError(
                f"{folder / name}: missing or changed since it was written; run `verify` for details"
            )


def files_in(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return size and digest of each file, and the files in each folder, that a later start may replace.

    Args:
        folder: output folder.
        names: names of files and folders of this program.
    """
    there = [folder / name for name in names]
    return {
        "files": {path.name: file_facts(path) for path in there if path.is_file()},
        "folders": {path.name: written_within(path) for path in there if path.is_dir()},
    }


def publish(
    store: OrfStore,
    inputs: list[str],
    gather: Callable[[ScoreFile], None],
    work: Path,
    output: Path,
    rules: CallingRules,
    clock: StageClock,
) -> tuple[dict[str, Any], dict[str, FileFacts]]:
    """Write the result files of a run.

    Args:
        store: ORF store.
        inputs: paths of the input files.
        gather: fills in (orfs, 2) scores; raises MissingScoresError if some are missing.
        work: folder in which the files are written.
        output: folder to which the complete files are moved.
        rules: calling rules.
        clock: clock of the stages.

    Returns:
        The counts of calls, and the size and SHA-256 of each file.

    Raises:
        MissingScoresError: some ORFs have no score.
        UserError: a file of others has the name of a result.
        DamagedStoreError: the store was changed during the run.
        OSError: the disk is full.
    """
    with clock(CONSENSUS):
        scores = ScoreFile(work / "scores", store.num_orfs)
        gather(scores)
    calls = write_results(store.folder, inputs, scores, work / "results", rules, clock)
    with clock(WRITING):
        check_unchanged(store.folder)  # after it was read completely
    files = {}
    with clock(WRITING):
        for name in RESULT_FILES:
            written = work / "results" / name
            flush(written)
            files[name] = file_facts(written)
        for name in RESULT_FILES:
            announce(work / "results" / name, output / name)
        for name in RESULT_FILES:
            (work / "results" / name).replace(output / name)
        flush(output)
    return calls, files
