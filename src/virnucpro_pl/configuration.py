"""Where the configuration is, and the resolvers it uses."""

import os
from pathlib import Path

from omegaconf import OmegaConf

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


def _log_name(job: str) -> str:
    process = process_of(job)
    return f"run.{process}.log" if process else "run.log"


def process_of(job: str) -> str:
    """Name a process of a run beside its first one, which has no name: ``rank1``, ``node1``, ``node1.rank1``."""
    local = job.rpartition("_ddp_process_")[2]  # Lightning calls the jobs of those it starts train_ddp_process_N
    if local.isdigit():
        return ".".join([*_node(), f"rank{local}"])
    several = int(os.environ.get("SLURM_NTASKS") or 1) > 1
    rank = os.environ.get("RANK") or (several and os.environ.get("SLURM_PROCID")) or "0"
    return f"rank{rank}" if rank != "0" else ".".join(_node())


def _node() -> list[str]:
    """Name a node beside the first, where Lightning starts the processes of each."""
    node = os.environ.get("NODE_RANK", "0")
    return [] if node == "0" else [f"node{node}"]
