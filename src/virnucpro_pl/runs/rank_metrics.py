"""Metrics of the ranks, gathered through files instead of collective calls."""

import json
import re
import time
from pathlib import Path
from typing import Any

from virnucpro_pl.files.durable import write_text

_POLL_SECONDS = 0.2


class RankMetrics:
    """Folder with one small JSON file per rank and kind of metrics."""

    def __init__(self, folder: Path):
        self._folder = folder

    def write(self, kind: str, rank: int, metrics: dict[str, Any]) -> None:
        """Write the metrics of one rank."""
        write_text(self._folder / f"{kind}-{rank}.json", json.dumps(metrics))

    def ranks(self, kind: str) -> set[int]:
        """Return the ranks that have written metrics of a kind."""
        names = (re.fullmatch(rf"{kind}-(\d+)", path.stem) for path in self._folder.glob("*.json"))
        return {int(name[1]) for name in names if name}

    def clear(self) -> None:
        """Remove the metrics of an earlier run."""
        for path in self._folder.glob("*.json"):
            path.unlink()

    def read(self, kind: str, world_size: int) -> list[dict[str, Any]]:
        """Wait for the metrics of all ranks and return them; a lost rank ends the run elsewhere."""
        paths = [self._folder / f"{kind}-{rank}.json" for rank in range(world_size)]
        while not all(path.exists() for path in paths):
            time.sleep(_POLL_SECONDS)
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
