"""What each rank measured, brought together without collective calls."""

import json
import re
import time
from pathlib import Path
from typing import Any

from virnucpro_pl.files.durable import write_text

_POLL_SECONDS = 0.2


class RankMetrics:
    """A folder with one small JSON file per rank and kind of figures."""

    def __init__(self, folder: Path):
        self._folder = folder

    def write(self, kind: str, rank: int, figures: dict[str, Any]) -> None:
        """Leave one rank's figures."""
        write_text(self._folder / f"{kind}-{rank}.json", json.dumps(figures))

    def ranks(self, kind: str) -> set[int]:
        """Return which ranks have left theirs."""
        names = (re.fullmatch(rf"{kind}-(\d+)", path.stem) for path in self._folder.glob("*.json"))
        return {int(name[1]) for name in names if name}

    def clear(self) -> None:
        """Forget the figures of an earlier run."""
        for path in self._folder.glob("*.json"):
            path.unlink()

    def read(self, kind: str, world_size: int) -> list[dict[str, Any]]:
        """Return the figures of all ranks, waiting for the slowest; a rank that is gone ends the run otherwise."""
        paths = [self._folder / f"{kind}-{rank}.json" for rank in range(world_size)]
        while not all(path.exists() for path in paths):
            time.sleep(_POLL_SECONDS)
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
