"""Tasks of a SLURM job step as the processes of one run."""

import os

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from virnucpro_pl.errors import UserError

_SET_BY_SRUN = ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_ID")


def slurm_environment() -> SLURMEnvironment:
    """Take ranks and addresses from SLURM.

    A job that is stopped is not put back into the queue by Lightning, which would save a checkpoint of the weights
    first; finished batches are on disk anyway, and ``sbatch --requeue`` and the same command continue from them.

    Raises:
        UserError: this is no task of a job step, or SLURM does not say how many of them a node has.
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
