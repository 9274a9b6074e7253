"""Counting what goes through the encoders, and how long they wait for it."""

import threading
import time
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.host.memory import peak_memory
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.results.summary import COUNTED
from virnucpro_pl.runs.rank_metrics import RankMetrics


class Throughput(Callback):
    """Leaves this rank's token counts, waiting times, memory, attention backends and GPU utilisation for the summary.

    Args:
        folder: where the figures of the ranks go.
        sample_seconds: time between two looks at the GPU.
    """

    def __init__(self, folder: str | Path, sample_seconds: float):
        self._figures = RankMetrics(Path(folder))
        self._sample_seconds = sample_seconds
        self._sampler: _GpuSampler | None = None
        self._utilisation: float | None = None
        self._wait_seconds = self._max_wait_seconds = 0.0
        self._waiting_since = 0.0
        self._began = 0.0
        self._seconds = 0.0
        self._device = torch.device("cpu")
        self._attention: dict[str, str] = {}
        self.counts = dict.fromkeys(COUNTED, 0)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the watch."""
        self._device = pl_module.device
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._sampler = _GpuSampler(self._device, self._sample_seconds)
            self._sampler.start()
        self._began = self._waiting_since = time.perf_counter()

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: OrfBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Note how long the batch kept the encoders waiting."""
        waited = time.perf_counter() - self._waiting_since
        self._wait_seconds += waited
        self._max_wait_seconds = max(self._max_wait_seconds, waited)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: OrfBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch; lengths are known on the host, so nothing waits for the device."""
        self.counts["batches"] += 1
        self.counts["orfs"] += len(batch.orfs)
        dna_cached, protein_cached = batch.cached[:2] if batch.cached else (None, None)
        for encoder, packed, cached in (("dna", batch.dna, dna_cached), ("protein", batch.protein, protein_cached)):
            self.counts[f"{encoder}_sequences"] += packed.num_sequences
            self.counts[f"{encoder}_cached"] += 0 if cached is None else len(cached)
            self.counts[f"{encoder}_tokens"] += packed.num_tokens
            self.counts[f"{encoder}_processed"] += len(packed.tokens)
        self._waiting_since = time.perf_counter()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the watch."""
        if self._sampler:
            torch.cuda.synchronize(self._device)
            self._utilisation = self._sampler.stop()
        self._seconds = time.perf_counter() - self._began
        if isinstance(pl_module, VirNucPro):
            self._attention = pl_module.attention()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the figures; called also where there was nothing to predict."""
        figures: dict[str, Any] = {
            **self.counts,
            "seconds": self._seconds,
            "wait_seconds": self._wait_seconds,
            "max_wait_seconds": self._max_wait_seconds,
            "peak_memory_bytes": peak_memory(),
            "device": str(self._device),
            "attention": self._attention,
            "token_budget": getattr(trainer.datamodule, "token_budget", None),  # type: ignore[attr-defined]
        }
        if self._sampler:
            self._sampler.stop()  # again, where prediction failed
            figures["gpu_utilisation"] = self._utilisation
            figures["gpu_name"] = torch.cuda.get_device_name(self._device)
            figures["gpu_driver"] = self._sampler.driver
            figures["gpu_peak_memory_bytes"] = torch.cuda.max_memory_allocated(self._device)
        self._figures.write("throughput", trainer.global_rank, figures)


class _GpuSampler(threading.Thread):
    """Reads one GPU's utilisation from NVML at regular times."""

    def __init__(self, device: torch.device, seconds: float):
        super().__init__(daemon=True)
        self._uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        self._seconds = seconds
        self._sum = self._readings = 0
        self.driver: str | None = None
        """Version of the driver, once it is known"""
        self._done = threading.Event()

    def run(self) -> None:
        import pynvml

        try:
            pynvml.nvmlInit()
            self.driver = str(pynvml.nvmlSystemGetDriverVersion())
            # By UUID: NVML numbers the machine's GPUs, CUDA only those it was shown.
            handle = pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
            while not self._done.wait(self._seconds):
                self._sum += pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
                self._readings += 1
        except pynvml.NVMLError:
            return  # the figure is then left out

    def stop(self) -> float | None:
        """Mean utilisation in percent, None without a reading."""
        self._done.set()
        self.join()
        return self._sum / self._readings if self._readings else None
