"""The LightningModule: encoders and head, nothing else."""

import logging
from typing import Any, NamedTuple

import torch
from lightning import LightningModule
from torch import Tensor

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.encoders.arithmetic import Arithmetic, used_attention
from virnucpro_pl.encoders.attention import Backend
from virnucpro_pl.encoders.dnabert_s import DnabertS
from virnucpro_pl.encoders.esm2 import Esm2
from virnucpro_pl.head import Head
from virnucpro_pl.host_memory import keep_freed_memory
from virnucpro_pl.stages import DNABERT_S, ESM2, HEAD, StageClock
from virnucpro_pl.weights.sources import DnabertSSource, Esm2Source, HeadSource, check_widths

log = logging.getLogger(__name__)


class ScoredOrfs(NamedTuple):
    """Scores of one batch, on their way to the host."""

    number: int
    """Number of the batch in the plan"""
    orfs: Tensor
    """(N,) int64, rows of the ORF store"""
    scores: Tensor
    """(N, 2) float32, probabilities of ``others`` and ``virus``"""
    arrived: torch.cuda.Event | None
    """When both are there; None where they always were"""

    @classmethod
    def leave(cls, number: int, orfs: Tensor, scores: Tensor) -> "ScoredOrfs":
        """Send the results of a batch to the host, which need not wait for them before it starts the next one."""
        arrived = torch.cuda.Event() if scores.is_cuda else None  # type: ignore[no-untyped-call]
        orfs, scores = (result.to("cpu", non_blocking=True) for result in (orfs, scores))
        if arrived:
            arrived.record()
        return cls(number, orfs, scores, arrived)

    def wait(self) -> None:
        """Return when the results are there."""
        if self.arrived:
            self.arrived.synchronize()


class VirNucPro(LightningModule):
    """DNABERT-S on the nucleotides and ESM-2 on the protein of each ORF, and a head on both.

    The weights are read in ``configure_model``, in every process by itself and in the trainer's precision.

    Args:
        dna_encoder: source of DNABERT-S.
        protein_encoder: source of ESM-2.
        head: source of the classifier.
        name: what the results call this model.
        attention: which attention kernels; ``auto`` takes the best that can run.
        exact: plain torch operations throughout, slow, as a reference.
        fp8: ESM-2's linear layers in float8.
        fp16_accumulation: sums of matrix products in float16.
        demo: whether its results are for trying out only.
        clock: takes the time of the stages.
    """

    def __init__(
        self,
        dna_encoder: DnabertSSource,
        protein_encoder: Esm2Source,
        head: HeadSource,
        name: str,
        attention: Backend = "auto",
        exact: bool = False,
        fp8: bool = False,
        fp16_accumulation: bool = False,
        demo: bool = False,
        clock: StageClock | None = None,
    ):
        super().__init__()
        self.dna_source = dna_encoder
        self.protein_source = protein_encoder
        self.head_source = head
        self.name = name
        self.demo = demo
        self.arithmetic = Arithmetic(attention, exact, fp8, fp16_accumulation)
        self.arithmetic.check()
        self._clock = clock or StageClock()
        self.dna_encoder: DnabertS | None = None
        self.protein_encoder: Esm2 | None = None
        self.head: Head | None = None

    def identity(self) -> dict[str, Any]:
        """What tells these weights from others; fetches from the hub what is not on disk."""
        return {
            "head": self.head_source.identity(),
            "dna_encoder": self.dna_source.identity(),
            "protein_encoder": self.protein_source.identity(),
        }

    def configure_model(self) -> None:
        """Load the weights; Lightning calls this more than once."""
        if self.head is None:
            head = self.head_source.load()
            self.dna_encoder = self.dna_source.load()
            self.protein_encoder = self.protein_source.load()
            check_widths(self.dna_encoder, self.protein_encoder, head, self.head_source)
            self.head = head

    def on_predict_start(self) -> None:
        """Settle how to compute, now that the weights are where they stay."""
        assert self.dna_encoder is not None
        assert self.protein_encoder is not None
        assert self.head is not None
        if self.device.type == "cpu":
            keep_freed_memory()
        self.head.float()  # it costs nothing, and its batch norm was never meant for less
        for encoder in (self.dna_encoder, self.protein_encoder):
            self.arithmetic.apply(encoder)
        log.info("Attention: %s", ", ".join(f"{name} by {kernels}" for name, kernels in self.attention().items()))

    def attention(self) -> dict[str, str]:
        """Attention kernels in use, by encoder."""
        assert self.dna_encoder is not None
        assert self.protein_encoder is not None
        return {DNABERT_S: used_attention(self.dna_encoder), ESM2: used_attention(self.protein_encoder)}

    def embed(self, batch: OrfBatch) -> Tensor:
        """(N, dna + protein) float32 embeddings, DNA first, in the order of ``batch.orfs``."""
        assert self.dna_encoder is not None
        assert self.protein_encoder is not None
        with self._clock(DNABERT_S, self.device):
            dna = self.dna_encoder(batch.dna)[batch.dna_places]
        with self._clock(ESM2, self.device):
            protein = self.protein_encoder(batch.protein)
        return torch.cat([dna, protein], dim=-1)

    def predict_step(self, batch: OrfBatch, batch_idx: int) -> ScoredOrfs:
        """Score one packed batch."""
        assert self.head is not None
        embedding = self.embed(batch)
        with self._clock(HEAD, self.device):
            scores = self.head.scores(embedding)
        return ScoredOrfs.leave(batch.number, batch.orfs, scores)
