"""RefSeq releases: names and checksums of files, and their selection."""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from typing import NamedTuple

from virnucpro_pl.errors import UserError

_NUMBER = "([1-9][0-9]{0,6})"
_FASTA = re.compile(rf"([a-z][a-z_]*)\.{_NUMBER}\.{_NUMBER}\.genomic\.fna\.gz", re.ASCII)
_GENBANK = re.compile(rf"([a-z][a-z_]*)\.{_NUMBER}\.genomic\.gbff\.gz", re.ASCII)
_CHECKSUM = re.compile("[0-9a-f]{32}")
_DIVISION = re.compile(r"[a-z][a-z_]*", re.ASCII)
_VIRAL = "viral"
_MIXED = "complete"
"""Folder of all divisions together; its files have no class"""


class Volume(NamedTuple):
    """GenBank file of a division and the FASTA files of the same records."""

    division: str
    number: int
    fasta: tuple[str, ...]

    @property
    def stem(self) -> str:
        """Return the common prefix of the file names, such as ``viral.1``."""
        return f"{self.division}.{self.number}"

    @property
    def annotation(self) -> str:
        """Return the name of the GenBank file."""
        return f"{self.stem}.genomic.gbff.gz"

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all files."""
        return (*self.fasta, self.annotation)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]


def links(page: str) -> list[str]:
    """Return the targets of the links of a page.

    >>> links('<a href="viral/">viral</a> <a href="?C=N;O=D">Name</a>')
    ['viral/', '?C=N;O=D']
    """
    parser = _Links()
    parser.feed(page)
    parser.close()
    return parser.targets


def listed_files(page: str) -> set[str]:
    """Return the genomic FASTA and GenBank files in the listing of a folder.

    Listings are untrusted: entries that are not exactly such file names, for instance paths, are ignored.

    >>> listed_files('<a href="viral.1.1.genomic.fna.gz">x</a> <a href="../viral.1.genomic.gbff.gz">y</a>')
    {'viral.1.1.genomic.fna.gz'}
    """
    return set(filter(is_file_name, links(page)))


def listed_divisions(page: str) -> list[str]:
    """Return the divisions in the listing of a release.

    >>> listed_divisions('<a href="viral/">v</a> <a href="release-notes/">n</a> <a href="/">up</a>')
    ['viral']
    """
    return sorted({name[:-1] for name in links(page) if name.endswith("/") and is_division(name[:-1])} - {_MIXED})


def is_division(name: str) -> bool:
    """Return whether a name is valid for a division and cannot lead to another folder."""
    return _DIVISION.fullmatch(name) is not None


def is_file_name(name: str) -> bool:
    """Return whether a name is that of a genomic FASTA or GenBank file of a release, and no path."""
    return bool(_FASTA.fullmatch(name) or _GENBANK.fullmatch(name))


def is_checksum(text: str) -> bool:
    """Return whether a text is an MD5 checksum in lower case."""
    return _CHECKSUM.fullmatch(text) is not None


def read_checksums(text: str) -> dict[str, str]:
    """Return the MD5 checksum of each genomic file from ``releaseN.files.installed``, in lower case.

    >>> read_checksums("D41D8CD98F00B204E9800998ECF8427E  viral.1.genomic.gbff.gz")
    {'viral.1.genomic.gbff.gz': 'd41d8cd98f00b204e9800998ecf8427e'}
    """
    entries = (line.split() for line in text.splitlines())
    pairs = ((entry[1], entry[0].lower()) for entry in entries if len(entry) == 2)
    return {name: checksum for name, checksum in pairs if is_checksum(checksum) and is_file_name(name)}


def wanted_counts(
    divisions: Iterable[str] | None, per_division: int | str | None, counts: Mapping[str, int | str]
) -> dict[str, int | None]:
    """Return the number of GenBank files of each division; None stands for all.

    Args:
        divisions: names of divisions; None: those in ``counts``.
        per_division: number of files of each division, or ``all``; None: those in ``counts``.
        counts: default numbers of files by division.

    Raises:
        UserError: a division is not allowed, or has no number of files.
    """
    wanted: dict[str, int | None] = {}
    for division in counts if divisions is None else divisions:
        if division == _MIXED:
            raise UserError(f"divisions: {_MIXED} holds viruses and others in the same files; give single divisions")
        count = per_division if per_division is not None else counts.get(division)
        if count is None:
            raise UserError(f"divisions: {division!r} has no default number of files; give files_per_division=N or all")
        is_number = isinstance(count, int) and not isinstance(count, bool) and count > 0
        if not is_number and count != "all":
            raise UserError(f"files of {division!r}: {count!r} is neither a number above 0 nor all")
        wanted[division] = count if isinstance(count, int) else None
    if not wanted:
        raise UserError("divisions: none given; give for instance divisions=[viral,bacteria]")
    return wanted


def select_volumes(names: Iterable[str], division: str, count: int | None, seed: int) -> list[Volume]:
    """Return a random selection of the files of a division, which depends on names and seed only.

    As in the published procedure, GenBank files are drawn, each with the first part of its FASTA files; without a
    number, all files with all parts are taken. GenBank files without FASTA and FASTA files without GenBank are skipped.

    Args:
        names: names of the available files, in any order.
        division: name of the division.
        count: number of GenBank files; None, or more than there are: all.
        seed: random seed.

    Returns:
        The volumes, in order of their numbers.
    """
    parts: dict[int, set[int]] = defaultdict(set)
    annotated = set()
    for name in names:
        if (fasta := _FASTA.fullmatch(name)) and fasta[1] == division:
            parts[int(fasta[2])].add(int(fasta[3]))
        elif (genbank := _GENBANK.fullmatch(name)) and genbank[1] == division:
            annotated.add(int(genbank[2]))
    numbers = sorted(number for number in annotated if (count is None and parts[number]) or 1 in parts[number])
    if count is not None and count < len(numbers):
        # One generator for each division, so that other divisions do not change the selection.
        numbers = sorted(random.Random(f"{seed}:{division}").sample(numbers, count))
    return [
        Volume(division, number, tuple(_fasta(division, number, part) for part in chosen))
        for number in numbers
        for chosen in [sorted(parts[number]) if count is None else [1]]
    ]


def _fasta(division: str, number: int, part: int) -> str:
    return f"{division}.{number}.{part}.genomic.fna.gz"


def genome_table(volumes: Iterable[Volume]) -> str:
    r"""Return the table of files that ``prepare`` reads: file, class, group, annotation, division.

    >>> print(genome_table([Volume("viral", 1, ("viral.1.1.genomic.fna.gz",))]).splitlines()[1].split("\t"))
    ['viral.1.1.genomic.fna.gz', 'virus', 'viral.1', 'viral.1.genomic.gbff.gz', 'viral']
    """
    rows = [("file", "class", "group", "annotation", "division")]
    for volume in volumes:
        label = "virus" if volume.division == _VIRAL else "others"
        rows += [(name, label, volume.stem, volume.annotation, volume.division) for name in volume.fasta]
    return "".join("\t".join(row) + "\n" for row in rows)
