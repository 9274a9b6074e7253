"""The starts of a run."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from virnucpro_pl.files.durable import write_text


class Starts:
    """File in the work folder with one entry for each start of a run.

    Args:
        folder: work folder.
    """

    def __init__(self, folder: Path):
        self._file = folder / "starts.json"

    def add(self, devices: int, done: int, batches: int, **engine: str) -> None:
        """Add the start of this process.

        Args:
            devices: number of processes.
            done: number of batches that earlier starts have finished.
            batches: number of batches of the plan.
            engine: versions and devices.
        """
        start = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "devices": devices,
            "batches_done_before": done,
            "batches": batches,
            **engine,
        }
        write_text(self._file, json.dumps([*self.read(), start], indent=2))

    def read(self) -> list[dict[str, Any]]:
        """Return all starts, oldest first."""
        try:
            starts = json.loads(self._file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # for information only
            return []
        return starts if isinstance(starts, list) else []
