"""Preparation of a dataset: selection of the fragments of genomes that are examples.

All files are read twice. The first pass translates all fragments and keeps class, genome, valid frames and a random
number of each (20 bytes). Caps and balance then select the fragments with the smallest random numbers, and the second
pass writes them. Memory does not depend on the lengths of sequences, and the sample not on the order of files.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from Bio.Seq import UndefinedSequenceError
from numpy.typing import NDArray

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.digests import sha256_of
from virnucpro_pl.sequence.alphabet import is_worth_a_warning, odd_text
from virnucpro_pl.sequence.blocks import RecordBlock, record_block
from virnucpro_pl.sequence.chunks import Geometry
from virnucpro_pl.sequence.records import BLOCK_BYTES, InputFacts, read_records
from virnucpro_pl.sequence.translation import FRAMES, WHOLE_CHUNK, Ambiguity, check_ambiguity, find_orfs
from virnucpro_pl.training.annotation import annotated_proteins, are_annotated, genbank_records
from virnucpro_pl.training.fragments import Cutter, read_pieces
from virnucpro_pl.training.genomes import Genome
from virnucpro_pl.training.read_errors import ErrorRates

log = logging.getLogger(__name__)

Rule = Literal["orfs", "annotated", "chunks"]
NO_FRAMES = np.uint8(0)
_FRAME_BITS = (1 << np.arange(len(FRAMES))).astype(np.uint8)
_WHOLE_BIT = np.uint8(1 << WHOLE_CHUNK)


class PrepareSettings(NamedTuple):
    """Settings of ``prepare``."""

    rule: Rule = "orfs"
    """``orfs``: all frames without stop codon; ``annotated``, as published: frames of fragments of A, C, G, T whose
    protein is part of an annotated protein of the record; ``chunks``: whole fragments, for heads on DNA alone"""
    chunk_length: str | int = 300
    """bases of a fragment, or a range"""
    chunking: Geometry = "published"
    """geometry of fragments of one length"""
    depth: int = 1
    """number of times that each record is cut; after the first time, from a random start"""
    ambiguity: Ambiguity = "published"
    """treatment of letters other than A, C, G, T"""
    max_per_genome: int | None = None
    """largest number of fragments of a record"""
    max_per_group: int | None = None
    """largest number of fragments of a group"""
    balance: bool = True
    """take as many fragments of each class"""
    errors: ErrorRates = ErrorRates()
    """rates of simulated read errors"""

    def check(self) -> None:
        """Raise UserError if a setting is out of range."""
        if self.rule not in get_args(Rule):
            raise UserError(f"data.rule={self.rule}: choose one of {', '.join(get_args(Rule))}")
        check_ambiguity(self.ambiguity)
        self.errors.check()
        if self.rule == "annotated" and self.errors.are_any:
            raise UserError(
                "data.rule=annotated: reads with errors are parts of no protein; use data.rule=orfs with them"
            )
        for name in ("max_per_genome", "max_per_group"):
            most = getattr(self, name)
            if most is not None and most < 1:
                raise UserError(f"data.{name}={most}: give a number above 0, or null for no limit")


class Candidates(NamedTuple):
    """Fragments of one file, in order."""

    genomes: list[str]
    """names of the records"""
    genome: NDArray[np.int32]
    """(F,) index of the record of each fragment"""
    frames: NDArray[np.uint8]
    """(F,) bits of the valid frames"""
    priority: NDArray[np.uint64]
    """(F,) random numbers"""
    facts: dict[str, Any]
    """entry of the file in ``dataset.json``"""


class Examples(NamedTuple):
    """Some chosen fragments of one file."""

    records: RecordBlock
    frames: NDArray[np.uint8]
    """(N,) bits of the valid frames"""
    genomes: list[str]
    """(N,) names of their records"""


def find_candidates(genome: Genome, settings: PrepareSettings, cutter: Cutter) -> Candidates:
    """Translate all fragments of a file and return those that could be examples.

    Raises:
        UserError: the file, or its annotation, cannot be read.
    """
    annotated = _proteins_of(genome) if settings.rule == "annotated" else {}
    names: list[str] = []
    owners, frames, priorities = [np.empty(0, np.int32)], [np.empty(0, np.uint8)], [np.empty(0, np.uint64)]
    bases = ambiguous = 0
    read = InputFacts()
    for name, letters in read_genome(genome, read):
        fragments = cutter.cut(genome.file, name, len(letters))
        bases += len(letters)
        proteins = annotated.get(name, "")
        of_record = np.zeros(len(fragments.start), dtype=np.uint8)
        # Blocks as long as the proteins: all passes over the proteins then take as long as one over the record.
        for piece in read_pieces(letters, fragments, settings.errors, max(BLOCK_BYTES, len(proteins))):
            orfs = find_orfs(piece.letters, piece.lengths, settings.ambiguity)
            counts = np.ones(len(orfs.chunk), dtype=np.bool_)
            if settings.rule == "annotated":
                ambiguous += int(np.count_nonzero(~piece.is_plain))
                counts = are_annotated(orfs.proteins, proteins) & piece.is_plain[orfs.chunk]
            if settings.rule == "chunks":
                of_record[piece.first : piece.first + len(piece.lengths)] = _WHOLE_BIT
                continue
            np.bitwise_or.at(of_record, piece.first + orfs.chunk[counts], _FRAME_BITS[orfs.frame[counts]])
        owners.append(np.full(len(of_record), len(names), dtype=np.int32))
        frames.append(of_record)
        priorities.append(fragments.priority)
        names.append(name)
    if not bases:
        raise UserError(f"{genome.path}: holds no sequences; leave it out or copy it again")
    _check_letters(genome, read)
    if settings.rule == "annotated":
        _check_annotation(genome, names, annotated)
    all_frames = np.concatenate(frames)
    facts = {
        "sha256": _digest(genome, read),
        "records": len(names),
        "bases": bases,
        "fragments": len(all_frames),
        "ambiguous": ambiguous,
    }
    facts["without_orf"] = int(np.count_nonzero(all_frames == NO_FRAMES)) - ambiguous
    return Candidates(names, np.concatenate(owners), all_frames, np.concatenate(priorities), facts)


def choose(files: list[Candidates], genomes: list[Genome], settings: PrepareSettings) -> list[NDArray[np.bool_]]:
    """Return which fragments of each file are examples: those with a valid frame, within caps and balance.

    Raises:
        UserError: a class has no examples.
    """
    sizes = [len(file.frames) for file in files]
    label = np.repeat([genome.label for genome in genomes], sizes)
    priority = np.concatenate([file.priority for file in files])
    chosen = np.concatenate([file.frames for file in files]) != NO_FRAMES
    if settings.max_per_genome is not None:
        first = np.cumsum([0, *(len(file.genomes) for file in files[:-1])])
        record = np.concatenate([start + file.genome for start, file in zip(first, files, strict=True)])
        chosen = _smallest(priority, chosen, record, settings.max_per_genome)
    if settings.max_per_group is not None:
        numbers = np.unique([genome.group for genome in genomes], return_inverse=True)[1]
        chosen = _smallest(priority, chosen, np.repeat(numbers, sizes), settings.max_per_group)
    counts = np.bincount(label[chosen], minlength=2)
    if not counts.all():
        name = ("others", "virus")[int(np.argmin(counts))]
        why = (
            "no frame of theirs is part of an annotated protein" if settings.rule == "annotated" else "they have no ORF"
        )
        raise UserError(f"input: no fragment of class {name} is an example, as {why}")
    if settings.balance:
        chosen = _smallest(priority, chosen, label, int(counts.min()))
    return np.split(chosen, np.cumsum(sizes)[:-1])


def _smallest(
    priority: NDArray[np.uint64], chosen: NDArray[np.bool_], group: NDArray[np.integer[Any]], most: int
) -> NDArray[np.bool_]:
    """Return the chosen fragments with the smallest random numbers of their groups."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.lexsort((priority[rows], group[rows]))]
    groups = group[rows]
    first = np.flatnonzero(np.diff(groups, prepend=-1))
    rank = np.arange(len(rows)) - np.repeat(first, np.diff(first, append=len(rows)))
    kept = np.zeros(len(chosen), dtype=np.bool_)
    kept[rows[rank < most]] = True
    return kept


def read_examples(
    genome: Genome, file: Candidates, chosen: NDArray[np.bool_], settings: PrepareSettings, cutter: Cutter
) -> Iterator[Examples]:
    """Read a file again and yield the chosen fragments, named ``GENOME:FIRST-LAST``."""
    seen = 0
    read = InputFacts()
    for name, letters in read_genome(genome, read):
        fragments = cutter.cut(genome.file, name, len(letters))
        here = slice(seen, seen + len(fragments.start))
        seen = here.stop
        some = fragments.select(chosen[here])
        frames = file.frames[here][chosen[here]]
        for piece in read_pieces(letters, some, settings.errors):
            rows = slice(piece.first, piece.first + len(piece.lengths))
            places = zip(some.start[rows].tolist(), some.end[rows].tolist(), strict=True)
            headers = [f"{name}:{start + 1}-{end}" for start, end in places]
            yield Examples(record_block(headers, piece.letters, piece.lengths), frames[rows], [name] * len(headers))
    if _digest(genome, read) != file.facts["sha256"]:
        raise UserError(f"{genome.path}: was changed while it was read; start again when the file is complete")


def _digest(genome: Genome, read: InputFacts) -> str:
    """Return the SHA-256 of a file that has been read completely."""
    is_annotated = genome.annotation == genome.path
    return sha256_of(genome.path)[genome.path.name] if is_annotated else read.digest.hexdigest()


def _check_letters(genome: Genome, read: InputFacts) -> None:
    """Refuse a file with many letters that are no nucleotides; warn of a few."""
    read.letters.check(str(genome.path))
    found = read.letters.as_dict()
    if "no_nucleotides" in found and is_worth_a_warning(found):
        log.warning("Warning: %s: %s; they count as bases", escaped(str(genome.path)), escaped(odd_text(found)))


def read_genome(genome: Genome, read: InputFacts) -> Iterator[tuple[str, bytes]]:
    """Yield the name and letters of each record of a FASTA or GenBank file.

    Args:
        genome: file of genomes.
        read: facts about the input, filled while FASTA is read.

    Raises:
        UserError: the file cannot be read.
    """
    if genome.annotation == genome.path:
        try:
            for record in genbank_records(genome.path):
                yield record.id, bytes(record.seq)
        except UndefinedSequenceError as error:
            raise UserError(f"{genome.path}: its records hold no sequence; give the FASTA file instead") from error
        except UserError:
            raise
        except (OSError, EOFError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{genome.path}: not a readable GenBank file ({reason}); copy it again") from error
        return
    for block in read_records(str(genome.path), read):
        first = 0
        for name, length in zip(block.names, block.lengths.tolist(), strict=True):
            yield name, block.letters[first : first + length]
            first += length


def _proteins_of(genome: Genome) -> dict[str, str]:
    if genome.annotation is None:
        raise UserError(
            f"{genome.path}: has no GenBank file beside it, which data.rule=annotated needs; name it in the column"
            " annotation, or use data.rule=orfs"
        )
    return annotated_proteins(genome.annotation)


def _check_annotation(genome: Genome, names: list[str], annotated: Mapping[str, str]) -> None:
    """Warn of records that are missing in the annotation; refuse an annotation without any."""
    lacking = sum(name not in annotated for name in names)
    text = f"{genome.annotation}: has {len(names) - lacking:,} of the {len(names):,} records of {genome.path}"
    if lacking == len(names):
        raise UserError(f"{text}; name the file that belongs to it, or use data.rule=orfs")
    if lacking:
        log.warning("Warning: %s; the fragments of the others are left out", escaped(text))


def describe(genome: Genome, file: Candidates, chosen: NDArray[np.bool_], num_orfs: int) -> dict[str, Any]:
    """Return the entry of one file in ``dataset.json``."""
    annotation = genome.annotation
    return {
        "file": escaped(genome.file),
        "class": ("others", "virus")[genome.label],
        "group": escaped(genome.group),
        **genome.columns,
        "annotation": None if annotation is None else annotation.name,
        **file.facts,
        "examples": int(np.count_nonzero(chosen)),
        "orfs": num_orfs,
    }
