"""Callback that measures throughput, waiting times, memory and GPU utilisation."""

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
    """Writer of the token counts, waiting times, memory, attention kernels and GPU utilisation of this rank.

    Args:
        folder: folder of the metrics of the ranks.
        sample_seconds: time between two readings of the GPU utilisation.
    """

    def __init__(self, folder: str | Path, sample_seconds: float):
        self._metrics = RankMetrics(Path(folder))
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
        """Start the clock and the readings of the GPU."""
        self._device = pl_module.device
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._sampler = _GpuSampler(self._device, self._sample_seconds)
            self._sampler.start()
        self._began = self._waiting_since = time.perf_counter()

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: OrfBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measure how long the encoders waited for the batch."""
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
        """Count the batch. Its lengths are on the host, so the device is not synchronised."""
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
        """Stop the clock and the readings of the GPU."""
        if self._sampler:
            torch.cuda.synchronize(self._device)
            self._utilisation = self._sampler.stop()
        self._seconds = time.perf_counter() - self._began
        if isinstance(pl_module, VirNucPro):
            self._attention = pl_module.attention()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the metrics, also if there was nothing to predict."""
        metrics: dict[str, Any] = {
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
            self._sampler.stop()  # if prediction failed
            metrics["gpu_utilisation"] = self._utilisation
            metrics["gpu_name"] = torch.cuda.get_device_name(self._device)
            metrics["gpu_driver"] = self._sampler.driver
            metrics["gpu_peak_memory_bytes"] = torch.cuda.max_memory_allocated(self._device)
        self._metrics.write("throughput", trainer.global_rank, metrics)


class _GpuSampler(threading.Thread):
    """Thread that reads the utilisation of a GPU from NVML at regular times."""

    def __init__(self, device: torch.device, seconds: float):
        super().__init__(daemon=True)
        self._uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        self._seconds = seconds
        self._sum = self._readings = 0
        self.driver: str | None = None
        """Version of the driver, set by the thread"""
        self._done = threading.Event()

    def run(self) -> None:
        import pynvml

        try:
            pynvml.nvmlInit()
            self.driver = str(pynvml.nvmlSystemGetDriverVersion())
            # By UUID: NVML numbers all GPUs of the host, CUDA only the visible ones.
            handle = pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
            while not self._done.wait(self._seconds):
                self._sum += pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
                self._readings += 1
        except pynvml.NVMLError:
            return  # the utilisation is then missing

    def stop(self) -> float | None:
        """Stop the thread and return the mean utilisation in percent, None without a reading."""
        self._done.set()
        self.join()
        return self._sum / self._readings if self._readings else None
