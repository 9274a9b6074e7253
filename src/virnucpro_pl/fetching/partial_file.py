"""Partial downloads, which survive interruptions and are renamed when complete."""

import hashlib
import os
from pathlib import Path

from virnucpro_pl.files.durable import flush

PART = ".part"
"""Suffix of incomplete files"""


class PartialFile:
    """Beginning of a file, and beside it the version of the file (ETag or date, for ``If-Range``)."""

    def __init__(self, path: Path):
        self._whole = path
        self.path = path.with_name(path.name + PART)
        self._version = path.with_name(path.name + PART + ".version")

    def size(self) -> int:
        """Return the number of bytes on disk."""
        return self.path.stat().st_size if self.path.exists() else 0

    def is_foreign(self) -> bool:
        """Return whether another program has written the partial file, so that it has no version."""
        return os.path.lexists(self.path) and not self._version.is_file()

    def version(self) -> str:
        """Return the version; empty if it is unknown, so that the download cannot be resumed."""
        try:
            version = self._version.read_text(encoding="ascii")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""
        return version if version.isprintable() else ""

    def begin(self, version: str) -> None:
        """Start a new partial file of a version."""
        self.discard()
        self._version.write_text(version, encoding="ascii", errors="ignore")
        self.path.touch()

    def discard(self) -> None:
        """Remove the partial file."""
        self.path.unlink(missing_ok=True)  # first: a partial file without version is not resumed
        self._version.unlink(missing_ok=True)

    def publish(self) -> None:
        """Flush the file to disk and rename it."""
        flush(self.path)
        self.path.replace(self._whole)
        flush(self._whole.parent)
        self._version.unlink(missing_ok=True)


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, as RefSeq publishes; it detects damage, not malice."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
