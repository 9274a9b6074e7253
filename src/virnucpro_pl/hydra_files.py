"""Files that Hydra itself would write. A Hydra callback, called before it writes any."""

import logging
import sys
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from virnucpro_pl.errors import escaped
from virnucpro_pl.failures import EXIT_USAGE

log = logging.getLogger(__name__)


class HydraFiles(Callback):
    """Refuses ``hydra.output_subdir``, into which Hydra writes its configuration over whatever is there."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Exit if a folder is set; Hydra would turn an exception of a callback into a warning."""
        if config.hydra.output_subdir is not None:
            name = escaped(str(config.hydra.output_subdir))
            log.error("Error: hydra.output_subdir=%s: run.json holds the configuration; leave this setting out", name)
            sys.exit(EXIT_USAGE)

    on_multirun_start = on_run_start
