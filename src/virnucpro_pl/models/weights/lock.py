"""``weights.lock``: SHA-256 of downloaded weights at their first use, to notice later changes."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from virnucpro_pl.errors import UserError
from virnucpro_pl.files.durable import write_text
from virnucpro_pl.models.weights.cache import cache_folder

LOCK_FILE = "weights.lock"


class WeightsLock:
    """Lock file that accepts new weights and refuses changed ones.

    Args:
        path: path of the lock file, which may be missing.
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def here(cls) -> "WeightsLock":
        """Return the lock file of the working directory, or of the user."""
        return cls(Path(LOCK_FILE) if Path(LOCK_FILE).exists() else cache_folder() / LOCK_FILE)

    def digests(self) -> dict[str, dict[str, str]]:
        """Return the SHA-256 of each file, by source.

        Raises:
            UserError: the file is no lock file.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: not a lock file of weights ({error}); fix or remove it") from error
        if not isinstance(content, dict) or not all(isinstance(files, dict) for files in content.values()):
            raise UserError(f"{self.path}: not a lock file of weights; fix or remove it")
        return content

    def check(self, source: str, digests: Mapping[str, str]) -> None:
        """Compare downloaded files with the lock file, and add new ones.

        Args:
            source: repository and revision, or URL.
            digests: SHA-256 of the files.

        Raises:
            UserError: a file was changed.
        """
        locked = self.digests()
        files = locked.get(source, {})
        for name, digest in digests.items():
            if files.get(name, digest) != digest:
                raise UserError(
                    f"{source}: {name} has the SHA-256 {digest[:16]}…, but {files[name][:16]}… in {self.path}; fetch it"
                    " again, or, if the change is meant, remove its line there"
                )
        if new := {name: digest for name, digest in digests.items() if name not in files}:
            locked[source] = dict(sorted({**files, **new}.items()))
            with suppress(OSError):  # a read-only cache
                write_text(self.path, json.dumps(dict(sorted(locked.items())), indent=2) + "\n")
