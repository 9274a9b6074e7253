"""From parts to result files: nothing appears before everything is there."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from virnucpro_pl.errors import DamagedResultsError
from virnucpro_pl.files.digests import file_facts
from virnucpro_pl.files.durable import announce, flush
from virnucpro_pl.files.output_files import RESULT_FILES, written_within
from virnucpro_pl.host.stage_clock import CONSENSUS, WRITING, StageClock
from virnucpro_pl.results.consensus import CallingRules
from virnucpro_pl.results.tables import write_results
from virnucpro_pl.runs.score_file import ScoreFile
from virnucpro_pl.sequence.store import OrfStore, check_unchanged


def check_results(folder: Path, run: Mapping[str, Any]) -> None:
    """Refuse result files that are not as they were written, before anything is made of them.

    Args:
        folder: the output folder of a finished run.
        run: its run record.

    Raises:
        DamagedResultsError: one is missing or was changed.
    """
    for name in RESULT_FILES:
        if not (folder / name).is_file() or file_facts(folder / name) != run["files"].get(name):
            raise DamagedResultsError(f"{folder / name}: missing or changed since it was written; `verify` tells more")


def files_in(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return the facts of the files of these names in a folder, and the files of this program in the folders.

    A later start of the same command may replace these, and nothing else.
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
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Write the result files of a run whose scores are all there.

    Args:
        store: the ORFs.
        inputs: the files it was made of, as they are called now.
        gather: fills in (orfs, 2) scores, or raises because some are missing.
        work: folder the files are written in first.
        output: folder they are moved to when all of them are complete and on the disk.
        rules: how scores become calls.
        clock: takes the time of consensus and writing.

    Returns:
        what was called how often, and size and SHA-256 of each file.

    Raises:
        MissingScoresError: some ORFs have no score.
        UserError: a file of others has one of the names.
        DamagedStoreError: the store was changed while the run was going.
        OSError: there is no space.
    """
    with clock(CONSENSUS):
        scores = ScoreFile(work / "scores", store.num_orfs)
        gather(scores)
    calls = write_results(store.folder, inputs, scores, work / "results", rules, clock)
    with clock(WRITING):
        check_unchanged(store.folder)  # once all has been read of it
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
