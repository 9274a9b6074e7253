"""``run.json``: what a finished run leaves last, beside its results."""

import json
from pathlib import Path
from typing import Any

from virnucpro_pl.errors import UserError
from virnucpro_pl.output_files import RUN_FILE


def read_run_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of the finished run in a folder, None if there is none.

    Raises:
        UserError: the file is not one this program has written.
    """
    file = folder / RUN_FILE
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: damaged ({error}); remove it, or give another output folder") from error
    if not isinstance(record, dict):
        raise UserError(f"{file}: not the record of a run; give another output folder")
    return record
