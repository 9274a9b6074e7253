"""Writer of a dataset, which appears complete or not at all."""

import hashlib
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.durable import flush
from virnucpro_pl.files.file_names import open_arrow
from virnucpro_pl.files.folder_lock import alone_in
from virnucpro_pl.files.output_files import DATASET_FILE, LABELS_FILE, LOG_FILE
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.sequence.builder import StoreBuilder
from virnucpro_pl.sequence.layout import StoreSettings, TableReader
from virnucpro_pl.sequence.seal import read_sealed, write_sealed
from virnucpro_pl.training.genomes import Genome, stem
from virnucpro_pl.training.preparation import Candidates, Examples, PrepareSettings, describe

FORMAT_VERSION = 1
_BUILDING = ".virnucpro-building-"
_LOCK_FILE = f"{_BUILDING}lock"
_OF_DATASET = re.compile(
    rf"(records|chunks|orfs)\.arrow|duplicate_\w+\.npy|manifest\.json|by_length-\w+|{re.escape(_BUILDING)}.*"
    rf"|{re.escape(LABELS_FILE)}|{re.escape(DATASET_FILE)}"
)
"""Names of the files of a dataset, and of those that an interrupted start leaves"""
_FIXED = ("label", "genome", "file", "group")


class DatasetWriter:
    """Writer of the examples of all files of genomes into an empty folder.

    Args:
        folder: folder of the dataset.
        genomes: all files, in order.
        files: candidates of each file.
        settings: settings of ``prepare``.
        longest: length of the longest fragment in nt, with errors.
    """

    def __init__(
        self,
        folder: Path,
        genomes: list[Genome],
        files: list[Candidates],
        settings: PrepareSettings,
        longest: int,
    ):
        self._folder = folder
        self._settings = settings
        store_settings = StoreSettings(longest, "published", settings.ambiguity, "any")
        self._builder = StoreBuilder(folder, store_settings, StageClock())
        names = Counter(name for file in files for name in set(file.genomes))
        self._shared_names = {name for name, count in names.items() if count > 1}
        self._columns = list(dict.fromkeys(key for genome in genomes for key in genome.columns))
        text = [(name, pa.string()) for name in (*_FIXED[1:], *self._columns)]
        schema = pa.schema([("label", pa.uint8()), *text, ("length", pa.int32())])
        self._labels_file = open_arrow(folder / LABELS_FILE, "wb")
        self._labels = pq.ParquetWriter(self._labels_file, schema)
        self._inputs: list[dict[str, Any]] = []
        self.sources: list[dict[str, Any]] = []

    def write_file(self, genome: Genome, file: Candidates, chosen: Any, examples: Iterator[Examples]) -> None:
        """Append the examples of one file."""
        num_records = 0
        for some in examples:
            self._builder.append(some.records, some.frames)
            prefix = f"{escaped(stem(genome.path))}/"
            names = [f"{prefix}{one}" if one in self._shared_names else one for one in some.genomes]
            count = len(names)
            fixed = [[genome.label] * count, names, [escaped(genome.file)] * count, [escaped(genome.group)] * count]
            more = [[genome.columns.get(key, "")] * count for key in self._columns]
            columns = [*fixed, *more, some.records.lengths.astype(np.int32)]
            self._labels.write_table(pa.table(columns, schema=self._labels.schema))
            num_records += count
        source = describe(genome, file, chosen, 0)
        self._inputs.append({"path": genome.file, "sha256": source["sha256"], "records": num_records, "mates": None})
        self.sources.append(source)

    def finish(self, record: dict[str, Any], seed: int) -> dict[str, Any]:
        """Complete the dataset and return the content of ``dataset.json``.

        Args:
            record: provenance of the dataset.
            seed: seed of the sampling.
        """
        self._labels.close()
        self._labels_file.close()
        # Embeddings belong to the examples, not to the files of genomes.
        self._builder.finish([{**one, "sha256": self._key(one, seed)} for one in self._inputs])
        self._count_orfs()
        settings = self._settings._asdict() | {"errors": self._settings.errors._asdict(), "seed": seed}
        content = {
            "format_version": FORMAT_VERSION,
            **record,
            "settings": settings,
            "columns": [*_FIXED[1:], *self._columns],
            "sources": self.sources,
            "counts": self._counts(),
        }
        digests = [source["sha256"] for source in self.sources]
        content["key"] = hashlib.sha256(json.dumps([settings, digests, content["counts"]]).encode()).hexdigest()
        write_sealed(self._folder / DATASET_FILE, content)
        return content

    def _key(self, source: dict[str, Any], seed: int) -> str:
        settings = [self._settings._asdict() | {"errors": list(self._settings.errors)}, seed, source]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def _count_orfs(self) -> None:
        """Count the ORFs of each file."""
        ends = np.cumsum([source["records"] for source in self._inputs])
        counts = np.zeros(len(ends), dtype=np.int64)
        for batch in TableReader(self._folder / "orfs.arrow", "record").batches():
            files = np.searchsorted(ends, batch.column("record").to_numpy(), side="right")
            counts += np.bincount(files, minlength=len(ends))
        for source, count in zip(self.sources, counts.tolist(), strict=True):
            source["orfs"] = count

    def _counts(self) -> dict[str, dict[str, int]]:
        kinds = ("records", "bases", "fragments", "ambiguous", "without_orf", "examples", "orfs")
        return {
            name: {
                "files": sum(source["class"] == name for source in self.sources),
                "groups": len({source["group"] for source in self.sources if source["class"] == name}),
                **{kind: sum(source[kind] for source in self.sources if source["class"] == name) for kind in kinds},
            }
            for name in ("virus", "others")
        }


def _is_dataset(folder: Path) -> bool:
    """Return whether a folder holds a dataset of this program, intact or damaged."""
    try:
        return "key" in read_sealed(folder / DATASET_FILE)
    except (OSError, ValueError):
        return False


@contextmanager
def appearing(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder for the files of a dataset, and move them to ``folder`` at the end, its record last.

    A dataset that is replaced stays until then.

    Raises:
        UserError: a file may not be replaced, or another process works in the folder.
    """
    _dataset_files(folder, overwrite)
    with alone_in(folder, _LOCK_FILE):
        there = _dataset_files(folder, overwrite)
        _remove(path for path in there if path.name.startswith(_BUILDING))
        with tempfile.TemporaryDirectory(dir=folder, prefix=_BUILDING) as temporary:
            building = Path(temporary)
            yield building
            (folder / DATASET_FILE).unlink(missing_ok=True)
            _remove(path for path in there if not path.name.startswith(_BUILDING))
            for path in sorted(building.iterdir(), key=lambda path: path.name == DATASET_FILE):
                flush(path)
                path.replace(folder / path.name)
    flush(folder)


def _dataset_files(folder: Path, overwrite: bool) -> list[Path]:
    """Return the files of an earlier dataset in a folder, complete or not.

    Raises:
        UserError: a file may not be replaced.
    """
    there = [path for path in folder.iterdir() if path.name != LOG_FILE] if folder.is_dir() else []
    if strange := sorted(path.name for path in there if not _OF_DATASET.fullmatch(path.name)):
        raise UserError(
            f"output={folder} holds {escaped(strange[0])}, which is not part of a dataset; move it away, or give"
            " another folder"
        )
    unfinished = all(path.name.startswith(_BUILDING) for path in there)
    if not unfinished and not _is_dataset(folder):
        raise UserError(f"output={folder} holds {there[0].name}, which belongs to no dataset; move it away")
    if (folder / DATASET_FILE).exists() and not overwrite:
        raise UserError(f"output={folder} holds a finished dataset; give another folder, or overwrite=true")
    return [path for path in there if path.name != _LOCK_FILE]


def _remove(paths: Iterable[Path]) -> None:
    """Remove files, links and folders."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
