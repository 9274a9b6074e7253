"""Six frames against Biopython."""

import itertools
from typing import get_args

import numpy as np
import pytest
from Bio.Data.IUPACData import ambiguous_dna_values
from Bio.Seq import Seq
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence.translation import FRAMES, Ambiguity, check_ambiguity, find_orfs

Found = list[tuple[int, str, str, str]]
IUPAC = "ACGTRYSWKMBDHVN"
CODONS = {"".join(codon) for codon in itertools.product("ACGT", repeat=3)}


def found_orfs(chunks: list[str], ambiguity: Ambiguity) -> Found:
    lengths = np.array([len(chunk) for chunk in chunks], dtype=np.int64)
    orfs = find_orfs("".join(chunks).encode(), lengths, ambiguity)
    assert orfs.num_bases.tolist() == [*map(len, orfs.nucleotides)]
    assert orfs.num_residues.tolist() == [*map(len, orfs.proteins)]
    return [
        (chunk, FRAMES[frame], nucleotides.decode(), protein.decode())
        for chunk, frame, nucleotides, protein in zip(*orfs[:4], strict=True)
    ]


def published_orfs(chunks: list[str]) -> Found:
    """Complement A, C, G, T only; drop other codons; take 3P + 1 bases from the left of the frame."""
    found = []
    for number, chunk in enumerate(chunks):
        upper = chunk.upper()
        reverse = "".join(str(Seq(base).complement()) if base in "ACGT" else base for base in reversed(upper))
        for strand, bases in (("F", upper), ("R", reverse)):
            for skipped in range(3):
                codons = [bases[i : i + 3] for i in range(skipped, len(bases) - 2, 3)]
                protein = "".join(str(Seq(codon).translate()) for codon in codons if codon in CODONS)
                if protein and "*" not in protein:
                    bases_used = bases[skipped : skipped + 3 * len(protein) + 1]
                    found.append((number, f"{strand}{skipped + 1}", bases_used, protein))
    return found


def shared_residue(codon: str) -> str:
    readings = {
        str(Seq("".join(bases)).translate()) for bases in itertools.product(*(ambiguous_dna_values[b] for b in codon))
    }
    return readings.pop() if len(readings) == 1 else "X"


def resolved_orfs(chunks: list[str]) -> Found:
    """Nucleotides and protein of the same bases, ambiguous codons by all their readings."""
    found = []
    for number, chunk in enumerate(chunks):
        upper = "".join(base if base in IUPAC else "N" for base in chunk.upper().replace("U", "T"))
        for strand, bases in (("F", upper), ("R", str(Seq(upper).reverse_complement()))):
            for skipped in range(3):
                protein = "".join(shared_residue(bases[i : i + 3]) for i in range(skipped, len(bases) - 2, 3))
                if protein.strip("X") and "*" not in protein:
                    bases_used = bases[skipped : skipped + 3 * len(protein) + 1]
                    found.append((number, f"{strand}{skipped + 1}", bases_used, protein))
    return found


letters = st.one_of(
    st.text("ACGT", min_size=1, max_size=40),
    st.text("ACGTacgtN", min_size=1, max_size=40),
    st.text(IUPAC + IUPAC.lower() + "Uu-*.12", min_size=1, max_size=25),
)


@settings(deadline=None)
@given(st.lists(letters, max_size=6))
def test_published_orfs(chunks: list[str]) -> None:
    assert found_orfs(chunks, "published") == published_orfs(chunks)


@settings(deadline=None)
@given(st.lists(letters, max_size=6))
def test_resolved_orfs(chunks: list[str]) -> None:
    assert found_orfs(chunks, "resolved") == resolved_orfs(chunks)


def test_every_ambiguous_codon() -> None:
    codons = ["".join(codon) for codon in itertools.product(IUPAC, repeat=3)]
    assert found_orfs(codons, "resolved") == resolved_orfs(codons)


@settings(deadline=None)
@given(st.lists(st.text("ACGT", min_size=1, max_size=60), max_size=6))
def test_both_ambiguity_rules_agree_on_plain_letters(chunks: list[str]) -> None:
    assert found_orfs(chunks, "published") == found_orfs(chunks, "resolved")


def test_resolved_nucleotides_and_protein_span_the_same_bases() -> None:
    for where in (0, 10, 11, 12, 29):
        chunk = "GCT" * 10
        chunk = chunk[:where] + "N" + chunk[where + 1 :]
        for _, _, nucleotides, protein in found_orfs([chunk], "resolved"):
            assert len(nucleotides) in (3 * len(protein), 3 * len(protein) + 1)


def test_stopped_chunks_are_told_from_those_without_a_codon() -> None:
    chunks = [b"TTAATTAATTAA", b"NNNNNNNNN", b"AC", b"GCT"]
    orfs = find_orfs(b"".join(chunks), np.array([len(chunk) for chunk in chunks]))
    assert orfs.stopped.tolist() == [True, False, False, False]
    assert orfs.chunk.tolist() == [3, 3]


def test_unknown_ambiguity_is_refused() -> None:
    with pytest.raises(UserError, match=", ".join(get_args(Ambiguity))):
        check_ambiguity("guess")


def test_recorded_translations(golden) -> None:
    """The recorded chunks give the recorded ORFs, byte for byte."""
    cases = [
        folder for folder in sorted((golden / "expected").iterdir()) if (folder / "identified_protein.faa").exists()
    ]
    assert cases
    for folder in cases:
        entries = ("\n" + (folder / "chunked.fa").read_bytes().decode()).split("\n>")[1:]
        names = [entry.split("\n", 1)[0] for entry in entries]
        chunks = [entry.split("\n", 1)[1].replace("\n", "") for entry in entries]
        orfs = find_orfs("".join(chunks).encode(), np.array([*map(len, chunks)], dtype=np.int64))
        ids = [f">{names[chunk]}{FRAMES[frame]}\n" for chunk, frame in zip(orfs.chunk, orfs.frame, strict=True)]
        for file, found in (("identified_nucleotide.fa", orfs.nucleotides), ("identified_protein.faa", orfs.proteins)):
            expected = (folder / file).read_bytes().decode()
            assert "".join(i + orf.decode() + "\n" for i, orf in zip(ids, found, strict=True)) == expected
