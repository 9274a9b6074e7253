"""``weights.lock``: which SHA-256 fetched weights had the first time, so that nobody exchanges them unnoticed."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from virnucpro_pl.errors import UserError
from virnucpro_pl.files.durable import write_text
from virnucpro_pl.models.weights.cache import cache_folder

LOCK_FILE = "weights.lock"


class WeightsLock:
    """Trusts what it has not seen before, and refuses what has changed since.

    Args:
        path: of the lock file; it need not exist.
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def here(cls) -> "WeightsLock":
        """Return the lock file of the folder one is in, which may be under version control, or the user's own."""
        return cls(Path(LOCK_FILE) if Path(LOCK_FILE).exists() else cache_folder() / LOCK_FILE)

    def known(self) -> dict[str, dict[str, str]]:
        """Return SHA-256 of each file by source.

        Raises:
            UserError: it is no lock file.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: not a lock file of weights ({error}); mend or remove it") from error
        if not isinstance(content, dict) or not all(isinstance(files, dict) for files in content.values()):
            raise UserError(f"{self.path}: not a lock file of weights; mend or remove it")
        return content

    def check(self, source: str, digests: Mapping[str, str]) -> None:
        """Compare fetched files with what is known of them, and note what is new.

        Args:
            source: repository and revision, or address.
            digests: SHA-256 of the files.

        Raises:
            UserError: a file is another one than before.
        """
        known = self.known()
        files = known.get(source, {})
        for name, digest in digests.items():
            if files.get(name, digest) != digest:
                raise UserError(
                    f"{source}: {name} has the SHA-256 {digest[:16]}…, but {files[name][:16]}… in {self.path}; fetch it"
                    " again, or, if the change is meant, remove its line there"
                )
        if new := {name: digest for name, digest in digests.items() if name not in files}:
            known[source] = dict(sorted({**files, **new}.items()))
            with suppress(OSError):  # a cache that may only be read
                write_text(self.path, json.dumps(dict(sorted(known.items())), indent=2) + "\n")
