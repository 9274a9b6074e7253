"""Strategy of several processes that predict without collective calls."""

import hashlib
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import torch
from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from virnucpro_pl.distributed.heartbeat import RankWatch
from virnucpro_pl.distributed.lightning_internals import SpawnLauncher, call_callback_hooks
from virnucpro_pl.errors import NodesDifferError
from virnucpro_pl.host.stopping import heed_termination

log = logging.getLogger(__name__)

_PARENT = "VIRNUCPRO_PARENT_PID"
_PATIENCE = timedelta(days=1)  # the first rank may read its input for hours; RankWatch notices lost ranks


class SeparateRanks(DDPStrategy):
    """DDP without collective calls during prediction.

    Each rank reads the weights itself; their fingerprints are compared. Ranks exchange their start-up state through
    gloo, which needs no GPU memory and fails at once when a process is gone.

    Args:
        start_method: ``popen`` starts this command again for each device, ``spawn`` starts Python processes.
        watch: callback that notices lost ranks.
    """

    def __init__(self, start_method: Literal["popen", "spawn"], watch: RankWatch):
        super().__init__(process_group_backend="gloo", timeout=_PATIENCE, start_method=start_method)
        self._watch = watch

    def _configure_launcher(self) -> None:
        super()._configure_launcher()
        if self._start_method == "spawn":
            self._launcher = _SavingLauncher(self, start_method="spawn")
        if not self._come_from_outside():
            # Ranks must know their parent even if it is gone before they start.
            os.environ[_PARENT] = str(os.getpid())

    def _come_from_outside(self) -> bool:
        """Return whether a launcher, or another process of this run, has started this process."""
        return self.cluster_environment is None or self.cluster_environment.creates_processes_externally

    def _parent(self) -> int | None:
        """Return the PID of the process that started this rank, None for the first rank of a node."""
        if not self.local_rank:
            return None
        by_lightning = isinstance(self.cluster_environment, LightningEnvironment) and _PARENT in os.environ
        return int(os.environ[_PARENT]) if by_lightning else os.getppid()

    def setup_environment(self) -> None:
        """Connect the ranks."""
        heed_termination()
        self.begin_watch()
        super().setup_environment()

    def begin_watch(self) -> None:
        """Start to send heartbeats and to watch those of others; called again once child processes exist."""
        self.set_world_ranks()
        self._watch.begin(self, self._parent())

    def setup(self, trainer: Trainer) -> None:
        """Move the model to its device.

        Raises:
            NodesDifferError: the weights of this rank differ from those of the first.
        """
        assert self.accelerator is not None
        assert self.model is not None
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        self.setup_precision_plugin()
        own = weights_fingerprint(self.model)
        if self.broadcast(own) != own:
            raise NodesDifferError(
                f"rank {self.global_rank} has read other weights than the first rank: do all nodes hold the same files?"
            )

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Wait for all ranks, with our handler of SIGTERM: Lightning's, set just before, would wait for ever."""
        heed_termination()
        super().barrier(*args, **kwargs)


class _SavingLauncher(SpawnLauncher):
    """Launcher of spawned ranks that calls ``on_exception`` of their callbacks, which save finished batches."""

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return super().launch(partial(_save_when_stopped, function), *args, **kwargs)


def _save_when_stopped(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        trainer = function.__self__  # type: ignore[attr-defined]  # a method of the trainer
        call_callback_hooks(trainer, "on_exception", error)
        raise


def weights_fingerprint(module: nn.Module) -> str:
    """Return a digest of the weights of a module, the same on every device."""
    sums = [(name, tuple(tensor.shape), _sum_of_bits(tensor)) for name, tensor in module.state_dict().items()]
    return hashlib.sha256(repr(sums).encode()).hexdigest()


def _sum_of_bits(tensor: Tensor) -> int:
    """Return the sum of a tensor's memory as integers, which does not depend on the order."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return int(tensor.detach().contiguous().view(whole).sum(dtype=torch.int64))
