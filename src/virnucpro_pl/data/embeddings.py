"""Embeddings of all ORFs of one input, memory-mapped: the output of ``embed``, on which heads are trained.

A folder of embeddings holds

- ``shards``: an embedding cache (``embedding_cache.py``) with the embeddings of distinct sequences;
- ``index.parquet``: one row per ORF, in input order: ``orf_id``, ``record``, ``frame``, and the location of its
  embeddings, ``dna_shard``, ``dna_row``, ``protein_shard``, ``protein_row`` (-1 for an encoder that was not used);
- ``embeddings.json``: the encoders, the names of their shards, and the input.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from virnucpro_pl.data.batch import Modality
from virnucpro_pl.data.embedding_cache import EmbeddingCache, EncoderCaches, content_keys
from virnucpro_pl.data.embedding_shards import DamagedShardError, Shard
from virnucpro_pl.errors import UserError
from virnucpro_pl.files.digests import file_facts
from virnucpro_pl.files.durable import replacing
from virnucpro_pl.files.file_names import open_arrow
from virnucpro_pl.files.output_files import EMBEDDINGS_FILE, INDEX_FILE, SHARDS
from virnucpro_pl.runs.run_record import read_run_record
from virnucpro_pl.sequence.store import OrfStore

FORMAT_VERSION = 1
_BLOCK_ORFS = 1 << 16
_SIDES = ("dna", "protein")
_INDEX = pa.schema(
    [
        ("orf_id", pa.string()),
        ("record", pa.int64()),
        ("frame", pa.uint8()),
        *((f"{side}_{place}", pa.int32()) for side in _SIDES for place in ("shard", "row")),
    ]
)


class OrfNames(NamedTuple):
    """Names of some consecutive ORFs of a store."""

    ids: list[str]
    records: NDArray[np.int64]
    frames: NDArray[np.uint8]


def write_index(path: Path, store: OrfStore, names: Iterable[OrfNames], caches: EncoderCaches) -> None:
    """Write the index: the location of the embeddings of each ORF.

    Args:
        path: file of the index.
        store: ORF store.
        names: names of all its ORFs, in order.
        caches: caches that hold all embeddings.

    Raises:
        UserError: embeddings are missing.
    """
    first = missing = 0
    with (
        replacing(path) as unfinished,
        open_arrow(unfinished, "wb") as stream,
        pq.ParquetWriter(stream, _INDEX) as writer,
    ):
        for some in names:
            rows = np.arange(first, first + len(some.ids))
            locations: list[NDArray[np.int32]] = []
            lacks = np.zeros(len(rows), dtype=np.bool_)
            for column, cache in zip((store.nucleotides, store.proteins), caches, strict=True):
                shards, shard_rows = np.full((2, len(rows)), -1, dtype=np.int32)
                if cache:
                    shards, shard_rows = cache.locate(content_keys(column.take(rows)))
                    lacks |= shards < 0
                locations += [shards, shard_rows]
            missing += int(lacks.sum())
            columns = [pa.array(some.ids, pa.string()), some.records, some.frames, *locations]
            writer.write_table(pa.table(columns, schema=_INDEX))
            first += len(rows)
        if missing:
            raise UserError(
                f"{missing:,} of {first:,} ORFs have embeddings that are NaN or infinite in this precision; give"
                " trainer.precision=32-true or bf16-true"
            )


class Embeddings:
    """Embeddings of ORFs with random access.

    Args:
        folder: output folder of ``embed``.

    Raises:
        UserError: the folder holds no embeddings, or is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest = read_manifest(folder)
        encoders = self.manifest["encoders"]
        self._shards = [
            _open_shards(folder, encoders[side]) if side in encoders else []
            for side in ("dna_encoder", "protein_encoder")
        ]
        names = [f"{side}_{place}" for side in _SIDES for place in ("shard", "row")]
        try:
            index = pq.read_table(pa.memory_map(os.fsencode(folder / INDEX_FILE)), columns=names)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(folder, f"{INDEX_FILE} cannot be read") from error
        self._locations = [index[name].to_numpy() for name in names]
        for shards, numbers in zip(self._shards, self._locations[::2], strict=True):
            if shards and len(numbers) and not (numbers.min() >= 0 and numbers.max() < len(shards)):
                raise _damaged(folder, f"{INDEX_FILE} names shards that do not exist")

    def __reduce__(self) -> tuple[type["Embeddings"], tuple[Path]]:
        return Embeddings, (self.folder,)

    @property
    def num_orfs(self) -> int:
        """Return the number of ORFs."""
        return len(self._locations[0])

    @property
    def inputs(self) -> Modality:
        """Return the modality of the embeddings."""
        dna, protein = map(bool, self._shards)
        return "both" if dna == protein else "dna" if dna else "protein"

    def width(self, inputs: Modality) -> int:
        """Return D of the embeddings of a modality."""
        widths = [
            self.manifest["encoders"].get(name, {}).get("width", 0) for name in ("dna_encoder", "protein_encoder")
        ]
        return sum(width for width, side in zip(widths, _SIDES, strict=True) if inputs in ("both", side))

    def take(self, orfs: NDArray[np.int64], inputs: Modality = "both") -> NDArray[np.float32]:
        """Return the (N, D) embeddings of (N,) rows of the store, DNA first.

        Raises:
            UserError: an embedding is damaged.
        """
        sides = [side for side in (0, 1) if inputs in ("both", _SIDES[side])]
        return np.concatenate([self._take_side(side, orfs) for side in sides], axis=1)

    def _take_side(self, side: int, orfs: NDArray[np.int64]) -> NDArray[np.float32]:
        shards, rows = (self._locations[2 * side + place][orfs] for place in (0, 1))
        embeddings: NDArray[np.float32] | None = None
        for number in np.unique(shards).tolist():
            here, shard = np.flatnonzero(shards == number), self._shards[side][number]
            values, is_intact = shard.take(rows[here].astype(np.int64))
            if not is_intact.all() or not np.isfinite(values).all():
                raise _damaged(self.folder, f"{shard.path.name} was changed since it was written")
            if embeddings is None:
                embeddings = np.empty((len(orfs), shard.width), dtype=np.float32)
            embeddings[here] = values
        return np.empty((0, self.width(_as_inputs(side))), dtype=np.float32) if embeddings is None else embeddings


def _as_inputs(side: int) -> Modality:
    return "protein" if side else "dna"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the content of ``embeddings.json``, which ``run.json`` has the digest of, as of the index.

    Raises:
        UserError: there is none, or it or the index is damaged or of another version.
    """
    _check_digests(folder)
    path = folder / EMBEDDINGS_FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"embeddings={folder}: holds no embeddings; give the output of a finished `embed`") from error
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{EMBEDDINGS_FILE} cannot be read") from error
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise UserError(f"embeddings={folder}: of another version of this program; run `embed` again")
    return manifest


def _check_digests(folder: Path) -> None:
    """Raise UserError if manifest or index differ from their digests in ``run.json``."""
    recorded = (read_run_record(folder) or {}).get("files")
    for name in (EMBEDDINGS_FILE, INDEX_FILE):
        path = folder / name
        if isinstance(recorded, dict) and name in recorded and path.is_file() and recorded[name] != file_facts(path):
            raise _damaged(folder, f"{name} was changed since it was written")


def _open_shards(folder: Path, encoder: dict[str, Any]) -> list[Shard]:
    shards = []
    for name in encoder["shards"]:
        path = folder / SHARDS / Path(encoder["folder"]).name / Path(name).name
        try:
            shards.append(Shard(path, encoder["identity"]))
        except (DamagedShardError, OSError) as error:
            raise _damaged(folder, f"{path.name}: {' '.join(str(error).split())}") from error
    return shards


def _damaged(folder: Path, reason: str) -> UserError:
    return UserError(
        f"embeddings={folder}: damaged: {reason}; run the same `embed` again with overwrite=true, or copy it again"
    )


def describe_cache(cache: EmbeddingCache, fingerprint: str) -> dict[str, Any]:
    """Return the entry of one encoder in the manifest."""
    return {
        "identity": fingerprint,
        "folder": cache.folder.name,
        "shards": [shard.path.name for shard in cache.shards],
        "width": cache.width or 0,
    }


def in_blocks(
    rows: NDArray[np.int64], read: Callable[[NDArray[np.int64]], NDArray[np.float32]]
) -> Iterator[NDArray[np.float32]]:
    """Yield the embeddings of some rows, block by block."""
    for start in range(0, len(rows), _BLOCK_ORFS):
        yield read(rows[start : start + _BLOCK_ORFS])
