"""Hydra callback that protects files of the user from being replaced by Hydra."""

import logging
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from virnucpro_pl.errors import escaped
from virnucpro_pl.failures import EXIT_USAGE

log = logging.getLogger(__name__)

_SWEEP_FILE = "multirun.yaml"


class HydraFiles(Callback):
    """Check of the files that Hydra would write itself."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse ``hydra.output_subdir``, in which Hydra would replace files."""
        if config.hydra.output_subdir is not None:
            name = escaped(str(config.hydra.output_subdir))
            refuse(f"hydra.output_subdir={name}: run.json holds the configuration; leave this setting out")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a folder with a ``multirun.yaml`` of another program, which Hydra would replace."""
        self.on_run_start(config)
        folder = Path(config.hydra.sweep.dir)
        file = folder / _SWEEP_FILE
        is_own = file.is_file() and __name__ in file.read_text(encoding="utf-8", errors="replace")
        if os.path.lexists(file) and not is_own:
            refuse(foreign_file(folder, _SWEEP_FILE))


def foreign_file(folder: Path, name: str) -> str:
    """Return the message for a file in the folder of a sweep that no sweep has written."""
    return (
        f"output={escaped(str(folder))}: holds {name}, which no sweep has written; move it away, or give another folder"
    )


def refuse(reason: str) -> NoReturn:
    """Log an error and exit; Hydra would turn an exception of a callback into a warning."""
    log.error("Error: %s", reason)
    sys.exit(EXIT_USAGE)
