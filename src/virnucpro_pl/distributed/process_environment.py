"""Cluster environment through which Lightning finds the processes of a run."""

import os

from hydra.core.hydra_config import HydraConfig
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from virnucpro_pl.errors import UserError
from virnucpro_pl.host.launchers import Devices, forget_other_launchers, is_started_by_lightning, launcher

_SET_BY_SRUN = ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_ID")


def process_environment(devices: Devices, num_nodes: int, slurm: bool) -> ClusterEnvironment:
    """Return the cluster environment of a trainer, so that Lightning does not guess the launcher.

    Args:
        devices: devices of a node, as the trainer takes them.
        num_nodes: number of nodes.
        slurm: whether srun has started one process for each task.

    Raises:
        UserError: this is no task of a SLURM job step, SLURM does not set the number of tasks of a node, or the
            addresses of several nodes are not in the environment.
    """
    match launcher(devices, num_nodes, slurm):
        case "slurm":
            return _slurm_environment()
        case "torchrun":
            return TorchElasticEnvironment()
    if num_nodes > 1:
        _check_nodes(num_nodes)
    environment = LightningEnvironment()
    if not (HydraConfig.initialized() and is_started_by_lightning(HydraConfig.get().job.name)):
        forget_other_launchers(num_nodes)
        environment.set_global_rank(0)  # loggers are silent if RANK or SLURM_PROCID is left over
    return environment


def _check_nodes(num_nodes: int) -> None:
    """Raise UserError if the nodes cannot find one another."""
    wrong = [name for name in ("NODE_RANK", "MASTER_PORT") if not os.environ.get(name, "").isdecimal()]
    if wrong := [*wrong, *(["MASTER_ADDR"] if not os.environ.get("MASTER_ADDR") else [])]:
        raise UserError(
            f"trainer.num_nodes={num_nodes}: {wrong[0]} is not set or not a number; start the command on every node"
            " with MASTER_ADDR, MASTER_PORT and NODE_RANK, with torchrun, or with trainer=slurm (docs/clusters.md)"
        )


def _slurm_environment() -> SLURMEnvironment:
    """Return SLURM's environment, without Lightning's requeuing, which saves a checkpoint of the weights first.

    Finished batches are on disk; ``sbatch --requeue`` and the same command resume from them.
    """
    if missing := [name for name in _SET_BY_SRUN if name not in os.environ]:
        raise UserError(
            f"trainer=slurm: {missing[0]} is not set; start the command with srun in a SLURM job (docs/clusters.md),"
            " or leave trainer=slurm out"
        )
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UserError(
            "trainer=slurm: SLURM_NTASKS_PER_NODE is not set; give sbatch --nodes and --ntasks-per-node, not --ntasks"
        )
    nodes, tasks_per_node, tasks = (
        int(os.environ.get(name, 1)) for name in ("SLURM_NNODES", "SLURM_NTASKS_PER_NODE", "SLURM_NTASKS")
    )
    if nodes * tasks_per_node != tasks:
        raise UserError(
            f"trainer=slurm: {tasks} tasks are not {nodes} nodes x {tasks_per_node} tasks per node; let srun start as"
            " many tasks as sbatch was asked for"
        )
    return SLURMEnvironment(auto_requeue=False)
