"""Files that Hydra itself would write. A Hydra callback, called before it writes any."""

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
    """Refuses to let Hydra write over files of the user."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse ``hydra.output_subdir``, into which Hydra writes its configuration over whatever is there."""
        if config.hydra.output_subdir is not None:
            name = escaped(str(config.hydra.output_subdir))
            _refuse(f"hydra.output_subdir={name}: run.json holds the configuration; leave this setting out")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse that, and a folder whose ``multirun.yaml``, which Hydra replaces, is of another program."""
        self.on_run_start(config)
        folder = Path(config.hydra.sweep.dir)
        file = folder / _SWEEP_FILE
        is_own = file.is_file() and __name__ in file.read_text(encoding="utf-8", errors="replace")
        if os.path.lexists(file) and not is_own:
            _refuse(
                f"output={escaped(str(folder))}: holds {_SWEEP_FILE}, which no sweep has written; move it away, or give"
                " another folder"
            )


def _refuse(reason: str) -> NoReturn:
    """Exit; Hydra would turn an exception of a callback into a warning."""
    log.error("Error: %s", reason)
    sys.exit(EXIT_USAGE)
