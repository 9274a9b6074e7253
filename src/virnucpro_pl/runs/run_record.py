"""``run.json``: what a finished run leaves last, beside its results."""

import json
from pathlib import Path
from typing import Any

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.file_kinds import unexpected_kind
from virnucpro_pl.files.output_files import RUN_FILE
from virnucpro_pl.runs.fingerprint import THRESHOLD


def read_run_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of the finished run in a folder, None if there is none.

    Raises:
        UserError: the file is not one this program has written.
    """
    file = folder / RUN_FILE
    if kind := unexpected_kind(file):
        raise UserError(f"{escaped(str(file))}: {kind}, not the record of a run; move it away")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: damaged ({error}); move it away, or name another folder") from error
    if not isinstance(record, dict):
        raise UserError(f"{file}: not the record of a run; move it away, or name another folder")
    return record


def fingerprint_of(run: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the fingerprint of a run, empty where its record has none.

    Raises:
        UserError: it is not what this program has written.
    """
    fingerprint = run.get("identity") or {}
    threshold = fingerprint.get(THRESHOLD) if isinstance(fingerprint, dict) else ""
    if not isinstance(threshold, float | int | None):
        raise UserError(f"{escaped(str(folder / RUN_FILE))}: damaged (identity); move it away, or name another folder")
    return dict(fingerprint)
