"""Launchers of several processes, and the environment variables that are used.

A batch job, a container or another launcher may leave variables that Lightning would use. Here the settings decide:
SLURM's variables are used with ``trainer=slurm``, torchrun's with several processes, and those of nodes started by hand
with several nodes.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

Devices = int | str | Sequence[int]
Launcher = Literal["lightning", "torchrun", "slurm"]

_OF_RANKS = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}
_OF_RANKS |= {f"{unit}_{what}" for unit in ("GROUP", "ROLE") for what in ("RANK", "WORLD_SIZE")}
_SET_BY_TORCHRUN = {"TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE"}
_OF_NODES = {"NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}


def launcher(devices: Devices, num_nodes: int, slurm: bool) -> Launcher:
    """Return the launcher of a run; Lightning also stands for a single process.

    Args:
        devices: devices of a node, as the trainer takes them.
        num_nodes: number of nodes.
        slurm: srun has started one process for each task.
    """
    if slurm:
        return "slurm"
    is_single = num_devices(devices) == 1 and num_nodes == 1
    return "torchrun" if _is_one_of_torchruns() and not is_single else "lightning"


def _is_one_of_torchruns() -> bool:
    """Return whether torchrun has started this process or its parent as one of several."""
    return os.environ.keys() >= _SET_BY_TORCHRUN and os.environ["WORLD_SIZE"] != "1"


def num_devices(devices: Devices) -> int | None:
    """Return the number of devices of a trainer setting; None if it depends on the host.

    >>> num_devices("0,2"), num_devices([1]), num_devices("2"), num_devices(-1), num_devices("auto")
    (2, 1, 2, None, None)
    """
    if isinstance(devices, str):
        words = devices.strip().rstrip(",").split(",")
        if not all(word.strip().isdecimal() for word in words):
            return None
        return len(words) if "," in devices else int(devices)
    if isinstance(devices, int):
        return devices if devices >= 0 else None
    return len(devices)


def is_started_by_lightning(job: str) -> bool:
    """Return whether Lightning has started this process for a further device.

    Args:
        job: name of Hydra's job, which Lightning sets to ``train_ddp_process_N``.
    """
    return job.rpartition("_ddp_process_")[2].isdecimal()


def process_name(job: str, devices: Devices, num_nodes: int, slurm: bool) -> str:
    """Return the name of a process: ``rank1``, ``node1``, ``node1.rank1``; empty for the first process."""
    node = os.environ.get("NODE_RANK", "0") if num_nodes > 1 else "0"
    if is_started_by_lightning(job):
        rank = job.rpartition("_")[2]
    else:
        variable = {"slurm": "SLURM_PROCID", "torchrun": "RANK", "lightning": ""}[launcher(devices, num_nodes, slurm)]
        rank = os.environ.get(variable, "0") if variable else "0"
        node = "0" if variable else node
    return ".".join([*([f"node{node}"] if node != "0" else []), *([f"rank{rank}"] if rank != "0" else [])])


@contextmanager
def no_fabric_settings() -> Iterator[None]:
    """Hide the variables of ``fabric run``, which would override the arguments of Fabric objects."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("LT_")}
    try:
        yield
    finally:
        os.environ |= hidden


def forget_other_launchers(num_nodes: int) -> None:
    """Remove the variables of other launchers that Lightning would use."""
    for name in _OF_RANKS if num_nodes > 1 else _OF_RANKS | _OF_NODES:
        os.environ.pop(name, None)
