"""Embeddings kept on disk, so that no encoder computes one again for a sequence it has seen.

A cache is a folder with one folder per encoder and numerics in it, each with any number of shards that are never
changed. Whoever writes adds shards, so runs and ranks need not know of each other; a sequence that two of them
embedded is there twice, which harms nothing.
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
    """What must be equal for two runs to get the same embeddings: weights and numerics, as text.

    None for an encoder that is not used.
    """

    dna: str | None
    protein: str | None


class EncoderCaches(NamedTuple):
    """The caches of both encoders; None for one that is not used."""

    dna: "EmbeddingCache | None"
    protein: "EmbeddingCache | None"


def open_caches(folder: Path, fingerprints: EncoderFingerprints, dtype: EmbeddingDtype = "float32") -> EncoderCaches:
    """Open the caches of the encoders below ``folder``; what is added to them is kept as ``dtype``."""
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
    """(N, 2): 128-bit BLAKE2b digests of sequences, each as two numbers."""
    digests = b"".join([hashlib.blake2b(sequence, digest_size=16).digest() for sequence in sequences])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64).reshape(-1, 2)


class EmbeddingCache:
    """The embeddings of one encoder; what is added while it is open is found by those who open it later.

    Instances travel to worker processes as the paths of the shards, so all processes of a run find the same.

    Args:
        root: folder of the cache.
        fingerprint: tells the encoder and its numerics apart.
        shards: the files to open; None for all there are.
        dtype: what is added is kept as; what is there already stays as it is.
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
        # One index over all shards, 16 bytes for an embedding; where keys are equal the first one is found.
        high = np.concatenate([np.empty(0, dtype=np.uint64), *(shard.high for shard in self.shards)])
        self._order = np.argsort(high, kind="stable")
        self._high = high[self._order]
        self._first_rows = np.cumsum([0, *(len(shard.high) for shard in self.shards)])

    def __reduce__(self) -> tuple[type["EmbeddingCache"], tuple[Path, str, list[Path], EmbeddingDtype]]:
        return EmbeddingCache, (self._root, self._fingerprint, [shard.path for shard in self.shards], self._dtype)

    @property
    def width(self) -> int | None:
        """D of the embeddings; None where there are none."""
        return self.shards[0].width if self.shards else None

    def holds_all(self, keys: NDArray[np.uint64]) -> bool:
        """Whether there is an undamaged embedding for each of (N, 2) keys."""
        return bool(self.find(keys)[0].all())

    def find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
        """Return (N,) whether each of (N, 2) keys is found, and the (C, D) embeddings of those found, None if C is 0.

        A damaged embedding is not found.
        """
        is_found = np.zeros(len(keys), dtype=np.bool_)
        embeddings = np.empty((len(keys), self.width or 0), dtype=np.float32)
        asked, shards, rows = self._look_up(keys)
        for number in np.setdiff1d(shards, list(self._damaged)).tolist():
            here, shard_rows = asked[shards == number], rows[shards == number]
            embeddings[here], is_same, is_sound = self.shards[number].read(shard_rows, keys[here, 1])
            is_found[here] = is_same & is_sound
            if not is_sound.all():
                self._damaged.add(number)
                self._set_aside(self.shards[number].path, "embeddings are not as they were written")
        return is_found, embeddings[is_found] if is_found.any() else None

    def locate(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return (N,) which of ``shards`` has each of (N, 2) keys, -1 if none, and (N,) the row in it."""
        found_shards, found_rows = np.full((2, len(keys)), -1, dtype=np.int32)
        asked, shards, rows = self._look_up(keys)
        for number in np.unique(shards).tolist():
            here, shard_rows = asked[shards == number], rows[shards == number]
            is_same = self.shards[number].low[shard_rows] == keys[here, 1]
            found_shards[here[is_same]], found_rows[here[is_same]] = number, shard_rows[is_same]
        return found_shards, found_rows

    def _look_up(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return which of (N, 2) keys have an equal first half here, in which shard, and in which row of it."""
        places = np.searchsorted(self._high, keys[:, 0])
        asked = np.flatnonzero(places < len(self._high))
        asked = asked[self._high[places[asked]] == keys[asked, 0]]
        rows = self._order[places[asked]]
        shards = np.searchsorted(self._first_rows, rows, side="right") - 1
        return asked, shards, rows - self._first_rows[shards]

    def write(self, keys: NDArray[np.uint64], embeddings: NDArray[np.float32]) -> None:
        """Add (N, D) embeddings of sequences with (N, 2) keys; those that are no numbers as ``dtype`` are left out.

        Raises:
            OSError: they cannot be written.
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
            log.warning("Embedding cache: %s is not used: %s", path, error.strerror)
        return None

    def _set_aside(self, path: Path, reason: str) -> None:
        log.warning("Embedding cache: %s is set aside and its embeddings are computed again: %s", path, reason)
        try:
            path.rename(path.with_suffix(".damaged"))
        except OSError:  # another process was first, or the folder may not be written
            log.debug("%s stays where it is", path)
