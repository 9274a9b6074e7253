"""Samples of the ORFs of a plan, tokenised, in batches, on the device."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor

from virnucpro_pl.benchmarking.settings import Settings
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.data.dataset import OrfBatches
from virnucpro_pl.data.packed import PackedTokens, pack
from virnucpro_pl.data.tokenizers import DnaTokenizer, protein_tokenizer
from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2
from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2


class OrfSample(NamedTuple):
    """N ORFs."""

    proteins: list[bytes]
    protein_tokens: list[NDArray[np.int64]]
    dna_tokens: list[NDArray[np.int64]]


def join(samples: Sequence[OrfSample]) -> OrfSample:
    """The ORFs of all samples."""
    return OrfSample(*(list(chain.from_iterable(column)) for column in zip(*samples, strict=True)))


class ReadsSample(NamedTuple):
    """What of the reads of one length the encoders are timed on."""

    mix: str
    token_budget: int
    batches: dict[str, list[PackedTokens]]
    """Batches of the plan for each encoder, on the device"""
    baseline: OrfSample
    one_by_one: OrfSample
    compared: OrfSample


def sample_reads(
    datamodule: FastaDataModule, tokenizer: DnaTokenizer, mix: str, settings: Settings, device: torch.device
) -> ReadsSample:
    """Take some of what a data module, set up, has planned."""

    def orfs(wanted: int) -> OrfSample:
        rows = np.asarray(datamodule.plan.rows)[evenly(len(datamodule.plan.rows), wanted)]
        proteins = datamodule.store.proteins.take(rows)
        return OrfSample(proteins, protein_tokenizer()(proteins), tokenizer(datamodule.store.nucleotides.take(rows)))

    planned = datamodule.predict_dataloader().dataset
    assert isinstance(planned, OrfBatches)
    batches = [planned[int(number)] for number in evenly(len(planned), settings.encoder_batches)]
    return ReadsSample(
        mix=mix,
        token_budget=datamodule.token_budget,
        batches={
            DNABERT_S: [on_device(batch.dna, device) for batch in batches],
            ESM2: [on_device(batch.protein, device) for batch in batches],
        },
        baseline=orfs(settings.baseline_sequences),
        one_by_one=orfs(settings.one_by_one_sequences),
        compared=orfs(-(-settings.precision_sequences // len(settings.read_lengths))),
    )


class PackedSample(NamedTuple):
    """N sequences in batches."""

    batches: list[PackedTokens]
    order: NDArray[np.int64]
    """(N,) which sequence each row of the batches is"""

    @torch.inference_mode()
    def embeddings(self, encoder: Esm2 | DnabertS) -> Tensor:
        """(N, D) float32, in the order in which the sequences were given."""
        return in_given_order(torch.cat([encoder(batch) for batch in self.batches]), self.order)


def pack_sample(sequences: Sequence[NDArray[np.int64]], token_budget: int, device: torch.device) -> PackedSample:
    """Pack token sequences, longest first, into batches on the device."""
    groups = longest_first([len(sequence) for sequence in sequences], token_budget)
    batches = [on_device(pack([sequences[i] for i in group]), device) for group in groups]
    return PackedSample(batches, np.concatenate(groups))


def on_device(packed: PackedTokens, device: torch.device) -> PackedTokens:
    """The same batch, its tensors on the device."""
    moved: PackedTokens = move_data_to_device(packed, device)
    return moved


def in_given_order(rows: Tensor, order: NDArray[np.int64]) -> Tensor:
    """(N, D) rows of which ``order`` says what each belongs to -> (N, D), sorted back."""
    return rows[torch.from_numpy(np.argsort(order)).to(rows.device)]


def longest_first(lengths: Sequence[int], token_budget: int) -> list[NDArray[np.int64]]:
    """Group sequences, longest first, so that even padded to equal length none passes the budget.

    >>> [group.tolist() for group in longest_first([3, 5, 2, 5, 4], token_budget=10)]
    [[1, 3], [4, 0], [2]]
    """
    order = np.argsort(-np.array(lengths), kind="stable")
    groups = []
    while len(order):
        count = max(1, token_budget // lengths[order[0]])
        groups.append(order[:count])
        order = order[count:]
    return groups


def evenly(total: int, wanted: int) -> NDArray[np.int64]:
    """At most ``wanted`` numbers below ``total``, evenly spread.

    >>> evenly(10, 3).tolist(), evenly(2, 5).tolist()
    ([1, 5, 8], [0, 1])
    """
    count = min(total, wanted)
    return ((np.arange(count) + 0.5) * total / max(count, 1)).astype(np.int64)
