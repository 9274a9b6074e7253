"""The LightningModule of encoders and head."""

import logging
from functools import cached_property
from typing import Any, NamedTuple, get_args

import torch
from lightning import LightningModule
from torch import Tensor

from virnucpro_pl.data.batch import Modality, OrfBatch
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.data.packed import PackedTokens
from virnucpro_pl.errors import UserError
from virnucpro_pl.host.memory import keep_freed_memory
from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2, HEAD, StageClock
from virnucpro_pl.models.encoders.attention import Backend
from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2
from virnucpro_pl.models.encoders.numerics import Numerics, used_attention
from virnucpro_pl.models.head import Head
from virnucpro_pl.models.weights.head_source import HeadSource, check_widths
from virnucpro_pl.models.weights.sources import DnabertSSource, Esm2Source

log = logging.getLogger(__name__)


class ScoredOrfs(NamedTuple):
    """Scores of one batch, during their transfer to the host."""

    number: int
    """number of the batch in the plan"""
    orfs: Tensor
    """(N,) int64, rows of the ORF store"""
    scores: Tensor
    """(N, 2) float32, scores of ``others`` and ``virus``; (N, 0) without head"""
    arrived: torch.cuda.Event | None
    """end of the transfer; None if the scores were computed on the host"""
    new_embeddings: tuple[Tensor, Tensor] | None = None
    """(M, D) float32 embeddings of the sequences in ``dna`` and ``protein`` of the batch; None without a cache.

    (0, 0) for an encoder that is not used.
    """

    @classmethod
    def to_host(
        cls, number: int, orfs: Tensor, scores: Tensor, new_embeddings: tuple[Tensor, Tensor] | None
    ) -> "ScoredOrfs":
        """Start the transfer of the results of a batch to the host, which can start the next batch meanwhile."""
        arrived = torch.cuda.Event() if scores.is_cuda else None  # type: ignore[no-untyped-call]
        orfs, scores = (result.to("cpu", non_blocking=True) for result in (orfs, scores))
        if new_embeddings:
            dna, protein = (embeddings.to("cpu", non_blocking=True) for embeddings in new_embeddings)
            new_embeddings = dna, protein
        if arrived:
            arrived.record()
        return cls(number, orfs, scores, arrived, new_embeddings)

    def wait(self) -> None:
        """Wait for the end of the transfer."""
        if self.arrived:
            self.arrived.synchronize()


class VirNucPro(LightningModule):
    """DNABERT-S on the nucleotides and ESM-2 on the protein of each ORF, and a head on the embeddings.

    ``configure_model`` reads the weights in each process, in the precision of the trainer. The weights of an encoder
    that is not used are not read.

    Args:
        dna_encoder: source of DNABERT-S.
        protein_encoder: source of ESM-2.
        head: source of the head; None: embed only.
        name: name of the model in the results.
        inputs: modality; None: that of the head.
        fallback_head: file of a head on DNA alone for chunks without ORF; None: they are not scored.
        attention: attention kernels.
        exact: see ``Numerics``.
        fp8: see ``Numerics``.
        fp16_accumulation: see ``Numerics``.
        demo: mark the results as not for science.
        clock: clock of the stages.
    """

    def __init__(
        self,
        dna_encoder: DnabertSSource,
        protein_encoder: Esm2Source,
        head: HeadSource | None,
        name: str,
        inputs: Modality | None = None,
        fallback_head: str | None = None,
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
        self.numerics = Numerics(attention, exact, fp8, fp16_accumulation)
        self.numerics.check()
        self._clock = clock or StageClock()
        self.dna_encoder: DnabertS | None = None
        self.protein_encoder: Esm2 | None = None
        self.head: Head | None = None
        if inputs not in (None, *get_args(Modality)):
            raise UserError(f"model.inputs={inputs}: choose one of {', '.join(get_args(Modality))}")
        self._inputs = inputs
        self.fallback_source = None if fallback_head is None else HeadSource(fallback_head)
        self.fallback_head: Head | None = None
        self._cached_widths: tuple[int | None, int | None] = None, None
        """Widths of the DNA and the protein embeddings if the embedding cache holds all of them"""

    @cached_property
    def inputs(self) -> Modality:
        """Return the modality.

        Raises:
            UserError: the setting contradicts the head.
        """
        trained = self.head_source.trained_inputs() if self.head_source else None
        if self._inputs and trained and self._inputs != trained:
            raise UserError(
                f"model.inputs={self._inputs}, but the head was trained on {trained}; leave model.inputs out"
            )
        return self._inputs or trained or "both"

    def sources(self) -> dict[str, HeadSource | DnabertSSource | Esm2Source]:
        """Return the sources of the weights in use."""
        heads = {"head": self.head_source, "fallback_head": self.fallback_source}
        return {**{name: head for name, head in heads.items() if head}, **self.encoder_sources()}

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of each source; missing weights are downloaded."""
        return {name: source.fingerprint() for name, source in self.sources().items()}

    def encoder_sources(self) -> dict[str, DnabertSSource | Esm2Source]:
        """Return the sources of the encoders in use."""
        sources: dict[str, DnabertSSource | Esm2Source]
        sources = {"dna_encoder": self.dna_source, "protein_encoder": self.protein_source}
        unused = {"both": "", "dna": "protein_encoder", "protein": "dna_encoder"}[self.inputs]
        return {name: source for name, source in sources.items() if name != unused}

    def embedding_width(self) -> int:
        """Return D of the embeddings of the loaded encoders."""
        encoders = (self.dna_encoder, self.protein_encoder)
        return sum(encoder.embedding_width for encoder in encoders if encoder is not None)

    def setup(self, stage: str) -> None:
        """Find out which encoders are not needed because the embedding cache holds all their embeddings."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(datamodule, FastaDataModule):
            self._cached_widths = datamodule.cached_widths()

    def configure_model(self) -> None:
        """Load the weights, if they are not loaded; Lightning calls this more than once."""
        head = self.head or (self.head_source.load() if self.head_source else None)
        dna_width, protein_width = self._cached_widths
        if self.inputs == "protein":
            dna_width = 0
        elif dna_width is None:
            self.dna_encoder = self.dna_encoder or self.dna_source.load()
            dna_width = self.dna_encoder.embedding_width
        if self.inputs == "dna":
            protein_width = 0
        elif protein_width is None:
            self.protein_encoder = self.protein_encoder or self.protein_source.load()
            protein_width = self.protein_encoder.embedding_width
        if head and self.head_source:
            check_widths(dna_width, protein_width, head, self.head_source)
        self.head = head
        if self.fallback_source and self.fallback_head is None:
            fallback = self.fallback_source.load()
            check_widths(dna_width, 0, fallback, self.fallback_source)
            self.fallback_head = fallback

    def on_predict_start(self) -> None:
        """Apply the numerics and log the attention kernels."""
        self.apply_numerics()
        for name, kernels in self.attention().items():
            log.info("Attention of %s by %s", name, kernels)

    def apply_numerics(self) -> None:
        """Apply the numerics to encoders and head on their device; may be called again.

        Raises:
            UserError: the device does not support a setting.
        """
        if self.device.type == "cpu":
            keep_freed_memory()
        for head in (self.head, self.fallback_head):
            if head:
                head.float()  # costs no time, and its batch norm needs it
        for encoder in self._encoders().values():
            self.numerics.apply(encoder)

    def on_predict_end(self) -> None:
        """Drop the encoders on a GPU before Lightning copies them to host memory, which takes seconds."""
        if self.device.type == "cuda":
            self.dna_encoder = self.protein_encoder = None

    def attention(self) -> dict[str, str]:
        """Return the attention kernels in use, by encoder."""
        return {name: used_attention(encoder) for name, encoder in self._encoders().items()}

    def _encoders(self) -> dict[str, DnabertS | Esm2]:
        """Return the loaded encoders."""
        encoders = {DNABERT_S: self.dna_encoder, ESM2: self.protein_encoder}
        return {name: encoder for name, encoder in encoders.items() if encoder is not None}

    def embed(self, batch: OrfBatch) -> Tensor:
        """Return the embeddings of a batch, (N, D) float32, DNA first, in the order of ``batch.orfs``."""
        return _of_orfs(batch, *self._embed_sequences(batch))

    def _embed_sequences(self, batch: OrfBatch) -> tuple[Tensor, Tensor]:
        """Return the embeddings of the distinct nucleotides and proteins of a batch, cached ones last."""
        dna_cached, protein_cached = batch.cached[:2] if batch.cached else (None, None)
        dna = protein = torch.empty((1, 0), device=self.device)  # one row for all ORFs, for an encoder that is not used
        if self.inputs != "protein":
            with self._clock(DNABERT_S, self.device):
                dna = _embeddings(self.dna_encoder, batch.dna, dna_cached)
        if self.inputs != "dna":
            with self._clock(ESM2, self.device):
                protein = _embeddings(self.protein_encoder, batch.protein, protein_cached)
        return dna, protein

    def predict_step(self, batch: OrfBatch, batch_idx: int) -> ScoredOrfs:
        """Score one packed batch."""
        dna, protein = self._embed_sequences(batch)
        scores = torch.empty((len(batch.orfs), 0), device=self.device)
        if self.head:
            with self._clock(HEAD, self.device):
                scores = self.head.scores(_of_orfs(batch, dna, protein))
                if batch.whole is not None and self.fallback_head:
                    whole = self.fallback_head.scores(dna[batch.dna_indices])
                    scores = torch.where(batch.whole[:, None], whole, scores)
        new = None
        if batch.cached:
            new = dna[: batch.dna.num_sequences], protein[: batch.protein.num_sequences]
        return ScoredOrfs.to_host(batch.number, batch.orfs, scores, new)


def _embeddings(encoder: DnabertS | Esm2 | None, packed: PackedTokens, cached: Tensor | None) -> Tensor:
    """Return the embeddings of M packed sequences, then the (C, D) cached ones: (M + C, D) float32."""
    stored = None if cached is None else cached.view(torch.float32)
    if stored is not None and packed.num_sequences == 0:
        return stored
    if encoder is None:
        raise RuntimeError("the embedding cache has lost embeddings since this run began, and no encoder was loaded")
    new: Tensor = encoder(packed)
    return new if stored is None else torch.cat([new, stored])


def _of_orfs(batch: OrfBatch, dna: Tensor, protein: Tensor) -> Tensor:
    """Return the embeddings of the ORFs, (N, D), from those of the distinct sequences."""
    return torch.cat([dna[batch.dna_indices], protein[batch.protein_indices]], dim=-1)
