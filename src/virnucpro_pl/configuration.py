"""Where the configuration is, and the resolvers it uses."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from virnucpro_pl.launchers import process_name
from virnucpro_pl.settings_help import settings_text

PACKAGE = Path(__file__).parent
# A wheel carries conf/ inside the package; a checkout keeps it beside src/.
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parents[1] / "conf") if folder.is_dir())
COMMANDS = sorted(file.stem for file in CONF.glob("*.yaml"))


def register_resolvers() -> None:
    """Make known to OmegaConf what the configuration files call."""
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
    OmegaConf.register_new_resolver("log_name", _log_name, replace=True)
    OmegaConf.register_new_resolver("settings", lambda command: settings_text(CONF, command), replace=True)
    OmegaConf.register_new_resolver("packaged", lambda name: str(PACKAGE / "demo" / name), replace=True)


def _run_folder(output: str, default: str) -> str:
    """Folder of a run; with ``-`` the table goes to standard output and the rest to the default folder."""
    return default if output == "-" else output


def _log_name(job: str, *, _root_: Any) -> str:
    process = process_of(job, _root_)
    return f"run.{process}.log" if process else "run.log"


def process_of(job: str, cfg: Any) -> str:
    """Name a process of a run beside its first one, which has no name: ``rank1``, ``node1``, ``node1.rank1``.

    Args:
        job: the name of Hydra's job.
        cfg: the configuration; one without a trainer has one process.
    """
    plugins = OmegaConf.select(cfg, "trainer.plugins")
    if plugins is None:
        return ""
    return process_name(job, plugins.devices, plugins.num_nodes, plugins.slurm)
