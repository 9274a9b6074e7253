"""Genomes of a dataset, from a table or a folder with one folder for each class."""

import io
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.sequence.decompressed import open_decompressed
from virnucpro_pl.sequence.streams import can_be_read_again
from virnucpro_pl.training.labelled_store import CLASSES

_SYNONYMS = {"viral": "virus", "nonviral": "others", "non-viral": "others", "host": "others"}
_GENBANK = (".gbff", ".gbk", ".gb", ".genbank")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_KNOWN = ("file", "class", "group", "annotation")


class Genome(NamedTuple):
    """File of genomes of one class."""

    file: str
    """path as in the table, or relative to the folder"""
    path: Path
    label: int
    """0 others, 1 virus"""
    group: str
    annotation: Path | None
    """GenBank file of the same records"""
    columns: dict[str, str]
    """further columns of the table"""


def read_genomes(source: Path) -> list[Genome]:
    """Read the table of genomes, or list the folders of the classes.

    A table is separated by tabs and has a header: ``file`` (relative to the table; ``*`` matches several), ``class``
    (virus or others), ``group``, optionally ``annotation``, and any further columns, such as family. A folder holds
    ``virus/`` and ``others/``; the group of a file is its name, with its folder if another file has the same name.

    Raises:
        UserError: the table is damaged, a file is missing or occurs twice, by any path, the folder of a class holds
            folders, sequences lie beside these folders, or a class is missing.
    """
    if not source.exists():
        raise UserError(f"input={source}: no such table or folder; check the path")
    genomes = _from_folder(source) if source.is_dir() else _from_table(source)
    seen: dict[tuple[int, int], str] = {}
    for genome in genomes:
        status = genome.path.stat()
        file = status.st_dev, status.st_ino
        if file in seen:
            other = "" if seen[file] == genome.file else f", also as {escaped(seen[file])}"
            raise UserError(f"input={source}: {escaped(genome.file)} is named twice{other}; leave one out")
        seen[file] = genome.file
    for label, name in enumerate(CLASSES):
        if all(genome.label != label for genome in genomes):
            raise UserError(f"input={source}: no file of class {name}; a head needs examples of virus and of others")
    return genomes


def _from_folder(folder: Path) -> list[Genome]:
    found = []
    if loose := [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and _holds_genomes(path)]:
        raise UserError(
            f"{escaped(str(loose[0]))}: lies in no folder of a class; move it to {' or '.join(CLASSES)} in {folder}, or"
            " elsewhere, or name it in a table, input=genomes.tsv"
        )
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        name = _SYNONYMS.get(inner.name.lower(), inner.name.lower())
        if name not in CLASSES:
            raise UserError(f"{inner}: not a class; the folders in {folder} should be called {' and '.join(CLASSES)}")
        for path in sorted(inner.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                raise UserError(
                    f"{path}: a folder in the folder of a class, where only files are read; move its files up, or name"
                    f" them in a table, input=genomes.tsv, as {inner.name}/{escaped(path.name)}/*"
                )
            _check_readable(path)
            if not _is_annotation_beside(path):
                file = f"{inner.name}/{path.name}"
                found.append(Genome(file, path, CLASSES.index(name), stem(path), annotation_of(path), {}))
    if not found:
        raise UserError(f"input={folder}: holds no files of genomes in folders called {' and '.join(CLASSES)}")
    files_of = Counter(genome.group for genome in found)
    return [genome._replace(group=genome.file) if files_of[genome.group] > 1 else genome for genome in found]


def _holds_genomes(path: Path) -> bool:
    """Return whether a path is a FASTA or GenBank file, by its content."""
    if not can_be_read_again(str(path)):
        return False
    try:
        with open_decompressed(path) as stream:
            return stream.read(6).startswith((b">", b"LOCUS "))
    except (OSError, UserError):
        return False


def _check_readable(path: Path) -> None:
    """Raise UserError if a file cannot be read twice."""
    if not can_be_read_again(str(path)):
        raise UserError(f"{path}: no regular file; `prepare` reads every file twice, so give a file on disk")


def _from_table(table: Path) -> list[Genome]:
    try:
        with open_decompressed(table) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig").read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"input={table}: cannot be read as a table ({' '.join(str(error).split())})") from error
    # Not splitlines(): a vertical tab or U+2028 within a cell does not end the line.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip() and line[0] != "#"]
    rows = [line.split("\t") for _, line in lines]
    header = [name.strip().lower() for name in rows[0]] if rows else []
    if missing := [name for name in _KNOWN[:3] if name not in header]:
        raise UserError(
            f"{table}: has no column {missing[0]}; a table of genomes is tab-separated, with file, class and group in"
            " its first line"
        )
    if len(set(header)) < len(header) or "" in header:
        raise UserError(f"{table}: column names must be unique; fix its first line")
    found: list[Genome] = []
    for (number, _), row in zip(lines[1:], rows[1:], strict=True):
        if len(row) > len(header):
            raise UserError(f"{table}: line {number} has {len(row)} columns, the first line {len(header)}; fix it")
        cells = dict(zip(header, (cell.strip(" ") for cell in [*row, *[""] * len(header)]), strict=False))
        found += _from_row(cells, table, number)
    return found


def _from_row(cells: dict[str, str], table: Path, number: int) -> list[Genome]:
    where = f"{table}: line {number}"
    name = _SYNONYMS.get(cells["class"].lower(), cells["class"].lower())
    if name not in CLASSES:
        raise UserError(f"{where}: class {escaped(cells['class'])!r} is unknown; give {' or '.join(CLASSES)}")
    if not cells["file"] or not cells["group"]:
        raise UserError(f"{where}: {'group' if cells['file'] else 'file'} is empty; every file needs one")
    paths = _matching(table.parent, cells["file"], where)
    annotation = cells.get("annotation")
    if annotation and len(paths) > 1:
        raise UserError(f"{where}: one annotation cannot belong to {len(paths)} files; leave it out or name each file")
    more = {key: value for key, value in cells.items() if key not in _KNOWN}
    label = CLASSES.index(name)
    return [
        Genome(
            cells["file"] if len(paths) == 1 else str(path.relative_to(table.parent)),
            path,
            label,
            cells["group"],
            _matching(table.parent, annotation, where)[0] if annotation else annotation_of(path),
            more,
        )
        for path in paths
    ]


def _matching(folder: Path, file: str, where: str) -> list[Path]:
    """Return the files of a cell of the table."""
    path = folder / file
    if path.exists() and not path.is_dir():
        _check_readable(path)
    found = [path] if path.is_file() else []
    if not found and set(file) & set("*?["):
        found = sorted(one for one in folder.glob(file) if one.is_file() and not _is_annotation_beside(one))
    if not found:
        raise UserError(f"{where}: {escaped(file)}: no such file in {folder}; check the path")
    return found


def annotation_of(path: Path) -> Path | None:
    """Return the GenBank file of a file of genomes: itself, or the file beside it that RefSeq's names imply.

    ``viral.1.1.genomic.fna.gz`` belongs to ``viral.1.genomic.gbff.gz``, ``GCF_1_genomic.fna.gz`` to
    ``GCF_1_genomic.gbff.gz``.
    """
    if _is_genbank(path):
        return path
    name = stem(path)
    parts = name.split(".")
    names = [name, ".".join([*parts[:-2], parts[-1]])] if len(parts) > 2 else [name]
    for one in names:
        for suffix in _GENBANK:
            for compressed in ("", *_COMPRESSED):
                if (beside := path.with_name(one + suffix + compressed)).is_file():
                    return beside
    return None


def stem(path: Path) -> str:
    """Return the name of a file without the suffixes of format and compression."""
    name = path.name
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return name.rpartition(".")[0] or name


def _is_genbank(path: Path) -> bool:
    name = path.name
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return name.endswith(_GENBANK)


def _is_annotation_beside(path: Path) -> bool:
    """Return whether a file is the annotation of another one in its folder."""
    return _is_genbank(path) and any(
        annotation_of(other) == path for other in path.parent.iterdir() if other != path and not _is_genbank(other)
    )
