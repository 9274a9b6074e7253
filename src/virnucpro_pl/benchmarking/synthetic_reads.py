"""Synthetic reads with at least one ORF each."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BASES = np.frombuffer(b"ACGT", dtype=np.uint8)
_STOPS = (b"TAA", b"TAG", b"TGA")
_COMPLEMENT = np.zeros(256, dtype=np.uint8)
_COMPLEMENT[_BASES] = _BASES[::-1]


def synthetic_reads(num_reads: int, length: int, seed: int) -> NDArray[np.uint8]:
    """Return reads of random sense codons, in any of the six frames: (num_reads, length) letters, uint8.

    The other five frames contain stop codons by chance, so short reads have more ORFs: every second read of 150 bases
    has another one, reads of 500 bases have none.
    """
    generator = np.random.default_rng([seed, length])
    triplets = np.stack(np.meshgrid(_BASES, _BASES, _BASES, indexing="ij"), axis=-1).reshape(-1, 3)
    sense = triplets[[triplet.tobytes() not in _STOPS for triplet in triplets]]
    codons = sense[generator.integers(len(sense), size=(num_reads, length // 3 + 2))].reshape(num_reads, -1)
    offsets = generator.integers(3, size=(num_reads, 1))
    reads: NDArray[np.uint8] = np.take_along_axis(codons, offsets + np.arange(length), axis=1)
    reverse = generator.random(num_reads) < 0.5
    reads[reverse] = _COMPLEMENT[reads[reverse, ::-1]]
    return reads


class Reads(NamedTuple):
    """FASTA file of reads of one length."""

    name: str
    length: int
    path: Path


def write_reads(num_reads: int, length: int, seed: int, folder: Path) -> Reads:
    """Write synthetic reads as FASTA records ``read_1``, ``read_2`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"reads_{length}.fasta"
    with path.open("wb") as stream:
        for number, read in enumerate(synthetic_reads(num_reads, length, seed), start=1):
            stream.write(b">read_%d\n%b\n" % (number, read.tobytes()))
    return Reads(f"{length} nt", length, path)
