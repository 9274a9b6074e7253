"""The output folder of a run: its lock, its fingerprint and its files."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from virnucpro_pl.configuration.hydra_config import command
from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.digests import file_facts
from virnucpro_pl.files.durable import write_text
from virnucpro_pl.files.folder_lock import LOCK_FILE, FolderLock, in_use
from virnucpro_pl.files.output_files import FIGURES_FOLDER, FOLDERS, RUN_FILE, written_within
from virnucpro_pl.runs.fingerprint import difference, scores_fingerprint
from virnucpro_pl.runs.output_folder import CLAIMED_FILES, claimed_by_unfinished, claimed_names
from virnucpro_pl.runs.run_record import read_run_record

_PATIENCE = 30.0  # seconds: the children of a killed process end within a few


class RunFolder:
    """Output folder of a run, which the first rank uses before and after prediction.

    Args:
        output: output folder.
        work: folder within it, removed when the run is finished.
        result_files: names of the results, files or folders.
        extra_files: names of files that can be made again from the results and that a finished run may lack.
    """

    def __init__(
        self,
        output: Path,
        work: Path,
        result_files: Iterable[str],
        extra_files: Iterable[str] = (),
    ):
        self._output = output
        self._work = work
        self._result_files = tuple(result_files)
        self._extra_files = tuple(extra_files)
        self._fingerprint_file = work / "identity.json"
        self._lock: FolderLock | None = None
        self._known: dict[str, Any] = {}
        self.finished: Mapping[str, Any] | None = None
        """Run record of the finished run in the folder, None if there is none"""

    @property
    def is_taken(self) -> bool:
        """Return whether the folder belongs to a run, finished or not."""
        return bool(self._known)

    def is_finished(self) -> bool:
        """Return whether the folder holds the record of a finished run."""
        return read_run_record(self._output) is not None

    def enter(self, overwrite: bool) -> None:
        """Lock the folder and read the fingerprint of the run that it belongs to.

        Args:
            overwrite: ignore earlier runs, which ``clear`` removes.

        Raises:
            UserError: another process works in the folder.
        """
        if not overwrite and self._read_finished():  # its folder may be read-only
            return
        self._lock = FolderLock(self._work / LOCK_FILE)
        if not self._lock.take_alone(_PATIENCE):
            raise in_use(self._output)
        if not overwrite and not self._read_finished() and self._fingerprint_file.exists():
            try:
                self._known = dict(json.loads(self._fingerprint_file.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise self._refusal("holds an unfinished run whose identity.json is damaged") from error

    def _read_finished(self) -> bool:
        run = read_run_record(self._output)
        if run is None:
            return False
        if not isinstance(run.get("identity"), dict):
            raise self._refusal("holds the results of another command or version")
        self.finished, self._known = run, run["identity"]
        return True

    def check(self, fingerprint: Mapping[str, Any]) -> None:
        """Raise UserError if the folder belongs to a run with another fingerprint; missing keys are ignored."""
        if differences := difference(self._known, fingerprint):
            content = "the results of another run" if self.finished else "an unfinished run with other settings"
            raise self._refusal(f"holds {content} ({differences})")

    def check_files(self) -> None:
        """Raise UserError if a result file of the finished run is missing or was changed."""
        assert self.finished is not None
        for name, file in self.finished["files"].items():
            path = self._output / name
            if name in self._extra_files and not os.path.lexists(path):
                continue
            if not path.is_file() or file_facts(path) != file:
                raise self._refusal(f"holds a finished run, but {name} is missing or was changed since")

    def clear(self) -> None:
        """Remove the files that earlier runs have written, and no others."""
        self.clear_unfinished()
        self.clear_finished()

    def clear_unfinished(self) -> None:
        """Remove what an unfinished run has written, and the work folder's content."""
        finished = claimed_names(self._output) or {}
        for name in claimed_by_unfinished(self._output) - finished.keys():
            if name in (*self._result_files, *self._extra_files):
                _remove_written(self._output / name, None)
        self._empty_work()

    def clear_finished(self) -> None:
        """Remove the files of a finished run."""
        claimed = claimed_names(self._output)
        if claimed is None:
            return
        for name in (*self._result_files, *self._extra_files):
            if name in claimed:
                _remove_written(self._output / name, claimed[name])
        with suppress(OSError):  # missing, or with files of others
            (self._output / FIGURES_FOLDER).rmdir()
        _remove(self._output / RUN_FILE)

    def claim(self, fingerprint: Mapping[str, Any]) -> None:
        """Write the fingerprint of this run into the folder, and share its lock with the other ranks.

        Raises:
            UserError: the folder belongs to another run.
        """
        self.check(fingerprint)
        files = self._known.get(CLAIMED_FILES) or {name: [] for name in self._result_files if name in FOLDERS}
        self._known = {"command": command()[1], CLAIMED_FILES: files, **scores_fingerprint(fingerprint)}
        write_text(self._fingerprint_file, json.dumps(self._known, indent=2))
        assert self._lock is not None
        if not self._lock.share():  # an exclusive lock is released before it becomes a shared one
            raise in_use(self._output)

    def note_appearing(self, unfinished: Path, path: Path) -> None:
        """Note the digest of a result before it is renamed, so that a later start recognises it as a file of this run.

        Args:
            unfinished: the complete file under its temporary name.
            path: its final path; files that are not results of this folder are ignored.

        Raises:
            UserError: a file of others has appeared under this path since the output folder was checked.
        """
        name = path.name
        if path.parent != self._output or name not in (*self._result_files, *self._extra_files):
            return
        written = self._known[CLAIMED_FILES].setdefault(name, [])
        if os.path.lexists(path) and not (path.is_file() and file_facts(path) in written):
            raise UserError(
                f"output={escaped(str(self._output))}: {name} appeared there during the run, and `{command()[1]}` has"
                " not written it; move it away and start the same command again, which keeps what is computed"
            )
        if (facts := file_facts(unfinished)) not in written:
            written.append(facts)
            write_text(self._fingerprint_file, json.dumps(self._known, indent=2))

    def finish(self, run: Mapping[str, Any]) -> None:
        """Write the run record, which marks the run as finished, and remove the work folder."""
        for name in claimed_by_unfinished(self._output):
            if name in self._extra_files and name not in run["files"]:  # of an earlier start with other formats
                (self._output / name).unlink(missing_ok=True)
        self.note(run)
        self.clear_work()

    def note(self, run: Mapping[str, Any]) -> None:
        """Write the run record."""
        write_text(self._output / RUN_FILE, json.dumps(run, indent=2) + "\n")
        self.finished = run

    def clear_work(self) -> None:
        """Remove the work folder of a finished run, the lock last, unless another process works in it."""
        with suppress(OSError):  # a read-only folder
            if self._lock is None and self._work.is_dir():
                self._lock = FolderLock(self._work / LOCK_FILE)
                if not self._lock.take_alone(0.0):
                    return
            self._empty_work()
            shutil.rmtree(self._work)

    def leave(self) -> None:
        """Release the lock."""
        if self._lock:
            self._lock.release()

    def _refusal(self, reason: str) -> UserError:
        return UserError(
            f"output={self._output} {reason}; give another folder, or overwrite=true to remove it and start over"
        )

    def _empty_work(self) -> None:
        """Remove all but the lock; other ranks may be writing heartbeats."""
        for path in self._work.iterdir():
            if path.name == LOCK_FILE:
                continue
            _remove(path, ignore_errors=path.name == "ranks")


def clear_results(output: Path, files: Iterable[str], overwrite: bool) -> None:
    """Delete the results of an earlier run, or raise ``UserError`` unless ``overwrite`` is set.

    Args:
        output: output folder.
        files: names of the results beside the run record; folders, such as embeddings, stay.
        overwrite: delete the results.
    """
    if not (output / RUN_FILE).exists():
        return
    if not overwrite:
        raise UserError(f"output={output} holds the results of a finished run; give another folder or overwrite=true")
    for path in (output / RUN_FILE, *(output / name for name in files)):
        if not path.is_dir():
            path.unlink(missing_ok=True)


def _remove(path: Path, ignore_errors: bool = False) -> None:
    """Remove a file, a link or a folder, if it exists."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=ignore_errors)


def _remove_written(path: Path, recorded: list[str] | None) -> None:
    """Remove a result: a file, or the files of a folder that a run has written and the folders left empty.

    Args:
        path: file, link or folder; may be missing.
        recorded: files within the folder according to the run record; None without a record.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for name in written_within(path):
        if recorded is None or name in recorded:
            (path / name).unlink()
    for folder in sorted((inner for inner in path.rglob("*") if inner.is_dir()), reverse=True):
        with suppress(OSError):  # not empty: files of others
            folder.rmdir()
    with suppress(OSError):
        path.rmdir()
