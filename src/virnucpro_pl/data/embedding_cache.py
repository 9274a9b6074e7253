"""Cache of embeddings on disk, for sequences that recur within a run or between runs.

A cache is a folder with one folder for each encoder and its numerics, which holds any number of shards. Shards are only
added, never changed, so that runs and ranks can write independently; a sequence that two of them embed is stored twice.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.data.embedding_shards import FORMAT_VERSION, SUFFIX, DamagedShardError, Shard, write_shard
from virnucpro_pl.errors import UserError

log = logging.getLogger(__name__)


EmbeddingDtype = Literal["float32", "float16"]


class EncoderFingerprints(NamedTuple):
    """Fingerprints of the weights and numerics of both encoders; None for an encoder that is not used."""

    dna: str | None
    protein: str | None


class EncoderCaches(NamedTuple):
    """Caches of both encoders; None for an encoder that is not used."""

    dna: "EmbeddingCache | None"
    protein: "EmbeddingCache | None"


def open_caches(folder: Path, fingerprints: EncoderFingerprints, dtype: EmbeddingDtype = "float32") -> EncoderCaches:
    """Open the caches of the encoders in a folder; new embeddings are stored as ``dtype``."""
    return EncoderCaches(
        *(
            None if fingerprint is None else EmbeddingCache(folder, fingerprint, dtype=dtype)
            for fingerprint in fingerprints
        )
    )


class CacheSettings(NamedTuple):
    """Folder of an embedding cache, and the dtype in which new embeddings are kept."""

    folder: Path
    dtype: EmbeddingDtype = "float32"

    @classmethod
    def of(cls, folder: str | Path, dtype: EmbeddingDtype = "float32") -> "CacheSettings":
        """Return the settings of a cache, and make its folder if it is missing.

        Raises:
            UserError: the folder cannot be made.
        """
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"data.embedding_cache={folder}: {error.strerror}; give another folder") from error
        return cls(Path(folder), dtype)


def content_keys(sequences: Sequence[bytes]) -> NDArray[np.uint64]:
    """Return the 128-bit BLAKE2b digests of sequences, (N, 2), each as two integers."""
    digests = b"".join([hashlib.blake2b(sequence, digest_size=16).digest() for sequence in sequences])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64).reshape(-1, 2)


class EmbeddingCache:
    """Cache of the embeddings of one encoder. Embeddings that are added become visible when it is opened again.

    Instances are pickled as the paths of their shards, so that all processes of a run see the same embeddings.

    Args:
        root: folder of the cache.
        fingerprint: fingerprint of the encoder.
        shards: files to open; None for all.
        dtype: dtype of the embeddings that are added.
    """

    def __init__(
        self, root: Path, fingerprint: str, shards: Sequence[Path] | None = None, dtype: EmbeddingDtype = "float32"
    ):
        self._root = root
        self._dtype = dtype
        self._fingerprint = fingerprint
        self.folder = root / hashlib.sha256(f"{FORMAT_VERSION} {fingerprint}".encode()).hexdigest()[:16]
        paths = sorted(self.folder.glob(f"*{SUFFIX}")) if shards is None else shards
        self.shards = [shard for shard in map(self._open, paths) if shard]
        self._damaged: set[int] = set()
        # One index over all shards, 16 bytes for an embedding; of equal keys the first one is found.
        high = np.concatenate([np.empty(0, dtype=np.uint64), *(shard.high for shard in self.shards)])
        self._order = np.argsort(high, kind="stable")
        self._high = high[self._order]
        self._first_rows = np.cumsum([0, *(len(shard.high) for shard in self.shards)])

    def __reduce__(self) -> tuple[type["EmbeddingCache"], tuple[Path, str, list[Path], EmbeddingDtype]]:
        return EmbeddingCache, (self._root, self._fingerprint, [shard.path for shard in self.shards], self._dtype)

    @property
    def width(self) -> int | None:
        """Return D of the embeddings, None if there are none."""
        return self.shards[0].width if self.shards else None

    def holds_all(self, keys: NDArray[np.uint64]) -> bool:
        """Return whether the cache holds an intact embedding for each of (N, 2) keys."""
        return bool(self.find(keys)[0].all())

    def find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
        """Look up intact embeddings.

        Args:
            keys: (N, 2) keys.

        Returns:
            Whether each key is found, (N,), and the embeddings of the C keys that are, (C, D), None if C is 0.
        """
        is_found = np.zeros(len(keys), dtype=np.bool_)
        embeddings = np.empty((len(keys), self.width or 0), dtype=np.float32)
        matches, shards, rows = self._look_up(keys)
        for number in np.setdiff1d(shards, list(self._damaged)).tolist():
            here, shard_rows = matches[shards == number], rows[shards == number]
            embeddings[here], is_same, is_intact = self.shards[number].read(shard_rows, keys[here, 1])
            is_found[here] = is_same & is_intact
            if not is_intact.all():
                self._damaged.add(number)
                self._set_aside(self.shards[number].path, "embeddings do not match their checksums")
        return is_found, embeddings[is_found] if is_found.any() else None

    def locate(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the shard of each of (N, 2) keys, -1 if there is none, and the row in it, (N,) each."""
        found_shards, found_rows = np.full((2, len(keys)), -1, dtype=np.int32)
        matches, shards, rows = self._look_up(keys)
        for number in np.unique(shards).tolist():
            here, shard_rows = matches[shards == number], rows[shards == number]
            is_same = self.shards[number].low[shard_rows] == keys[here, 1]
            found_shards[here[is_same]], found_rows[here[is_same]] = number, shard_rows[is_same]
        return found_shards, found_rows

    def _look_up(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the indices of the keys whose first half is found, and the shard and the row of each, (M,)."""
        positions = np.searchsorted(self._high, keys[:, 0])
        matches = np.flatnonzero(positions < len(self._high))
        matches = matches[self._high[positions[matches]] == keys[matches, 0]]
        rows = self._order[positions[matches]]
        shards = np.searchsorted(self._first_rows, rows, side="right") - 1
        return matches, shards, rows - self._first_rows[shards]

    def write(self, keys: NDArray[np.uint64], embeddings: NDArray[np.float32]) -> None:
        """Add (N, D) embeddings with (N, 2) keys, except those that are NaN or infinite as ``dtype``.

        Raises:
            OSError: the shard cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        first = np.unique(keys, axis=0, return_index=True)[1]
        with np.errstate(over="ignore"):
            kept = embeddings[first].astype(self._dtype, copy=False)
        is_finite = np.isfinite(kept).all(axis=1)
        write_shard(self.folder, self._fingerprint, keys[first][is_finite], kept[is_finite])
        description = self.folder / "encoder.json"
        if not description.exists():
            description.write_text(self._fingerprint + "\n", encoding="utf-8")

    def _open(self, path: Path) -> Shard | None:
        try:
            return Shard(path, self._fingerprint)
        except DamagedShardError as error:
            self._set_aside(path, str(error))
        except OSError as error:
            log.warning("Embedding cache: %s is ignored: %s", path, error.strerror)
        return None

    def _set_aside(self, path: Path, reason: str) -> None:
        log.warning("Embedding cache: %s is damaged and set aside; its embeddings are computed again: %s", path, reason)
        try:
            path.rename(path.with_suffix(".damaged"))
        except OSError:  # another process was faster, or the folder is read-only
            log.debug("%s cannot be renamed", path)
