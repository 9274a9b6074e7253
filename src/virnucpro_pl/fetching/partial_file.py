"""Files that come in pieces: what there is of them survives any stop, and they get their names when complete."""

import hashlib
import os
from pathlib import Path

from virnucpro_pl.files.durable import flush

PART = ".part"
"""How the names of files end that are not complete yet"""


class PartialFile:
    """The beginning of a file, and beside it which version of the file that is (ETag or date, for ``If-Range``)."""

    def __init__(self, path: Path):
        self._whole = path
        self.path = path.with_name(path.name + PART)
        self._version = path.with_name(path.name + PART + ".version")

    def size(self) -> int:
        """Return how many bytes are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def is_foreign(self) -> bool:
        """Return whether a file of this name is there that another program has left: it has no version beside it."""
        return os.path.lexists(self.path) and not self._version.is_file()

    def version(self) -> str:
        """Return its version; empty if that is not known, so that nothing can be added."""
        try:
            version = self._version.read_text(encoding="ascii")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""
        return version if version.isprintable() else ""

    def begin(self, version: str) -> None:
        """Forget what is there; what comes is of this version."""
        self.discard()
        self._version.write_text(version, encoding="ascii", errors="ignore")
        self.path.touch()

    def discard(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)  # first: with no version it would not be added to
        self._version.unlink(missing_ok=True)

    def publish(self) -> None:
        """Give the file its name; on the disk when this returns."""
        flush(self.path)
        self.path.replace(self._whole)
        flush(self._whole.parent)
        self._version.unlink(missing_ok=True)


def md5_of(path: Path) -> str:
    """MD5 of a file, which is what RefSeq publishes; it finds damage, not malice."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
