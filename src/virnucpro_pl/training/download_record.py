"""``download.json``: the files of a release in a folder, their URLs and checksums."""

import hashlib
import json
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from virnucpro_pl import __version__
from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.fetching.polite_http import RemoteFile
from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.files.durable import write_text
from virnucpro_pl.files.file_kinds import unexpected_kind
from virnucpro_pl.training.refseq import Volume, genome_table, is_checksum, is_file_name, select_volumes

RECORD = "download.json"
TABLE = "genomes.tsv"
"""File that ``prepare`` reads"""
_FORMAT_VERSION = 1


class Selection(NamedTuple):
    """Selection of files of a release."""

    source: str
    """URL of the release, with / at its end"""
    counts: Mapping[str, int | None]
    """number of GenBank files of each division; None: all"""
    seed: int


class Plan(NamedTuple):
    """Files to download, as listed by the server."""

    release: int
    files: list[RemoteFile]

    def volumes(self, selection: Selection) -> list[Volume]:
        """Return the files, grouped by GenBank file."""
        names = [file.name for file in self.files]
        return [
            volume for division in selection.counts for volume in select_volumes(names, division, None, selection.seed)
        ]

    def table(self, selection: Selection) -> str:
        """Return the content of ``genomes.tsv``."""
        return genome_table(self.volumes(selection))


def _fingerprint(selection: Selection) -> dict[str, Any]:
    return {"source": selection.source, "counts": dict(selection.counts), "seed": selection.seed}


def write_record(folder: Path, selection: Selection, plan: Plan, finished: bool) -> None:
    """Write release, selection, and URL, size, MD5 and dates of each file that is or will be downloaded."""
    record = {
        "format_version": _FORMAT_VERSION,
        "version": __version__,
        "release": plan.release,
        "selection": _fingerprint(selection),
        "finished": _date(time.time()) if finished else None,
        "table": hashlib.sha256(plan.table(selection).encode()).hexdigest(),
        "files": [
            {**file._asdict(), "fetched": _date((folder / file.name).stat().st_mtime) if finished else None}
            for file in plan.files
        ],
    }
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of an earlier download, empty if there is none or it has another version.

    Raises:
        UserError: the file was not written by ``download``.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or "format_version" not in record:
        raise _foreign(folder, RECORD)
    return record if record["format_version"] == _FORMAT_VERSION else {}


def check_table(folder: Path, record: dict[str, Any]) -> None:
    """Raise UserError if ``genomes.tsv`` was edited or was not written by this program."""
    table = folder / TABLE
    if unexpected_kind(table) or (table.exists() and sha256_of(table)[TABLE] != record.get("table")):
        raise _foreign(folder, TABLE)


def _foreign(folder: Path, name: str) -> UserError:
    return UserError(
        f"output={escaped(str(folder))}: {name} was not written by `download`, or was changed since; move it away, or"
        " give another folder"
    )


def plan_of(record: dict[str, Any], selection: Selection) -> Plan | None:
    """Return the plan of an earlier download of the same selection, so that it is resumed with the same files."""
    if record.get("selection") != _fingerprint(selection):
        return None
    try:
        files = [RemoteFile(*(entry[key] for key in RemoteFile._fields)) for entry in record["files"]]
        release = int(record["release"])
        return Plan(release, files) if all(_is_sound(file, selection.source) for file in files) else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _is_sound(file: RemoteFile, source: str) -> bool:
    """Return whether the entry of a file has a valid name and URL."""
    is_file = is_file_name(file.name) and file.url.startswith(source)
    return is_file and file.md5 is not None and is_checksum(file.md5) and isinstance(file.bytes, int | None)
