"""How often a run was started, and where each start took over."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from virnucpro_pl.files.durable import write_text


class Starts:
    """A small file in the work folder that every start adds to.

    Args:
        folder: the work folder.
    """

    def __init__(self, folder: Path):
        self._file = folder / "starts.json"

    def add(self, devices: int, done: int, batches: int, **engine: str) -> None:
        """Note that this process starts to predict.

        Args:
            devices: processes that predict.
            done: batches that earlier starts have done.
            batches: batches of the plan.
            engine: what computes.
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
        """Return all starts, the first one first."""
        try:
            starts = json.loads(self._file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # it is for information only
            return []
        return starts if isinstance(starts, list) else []
