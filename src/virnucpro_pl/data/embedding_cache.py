"""Embeddings kept on disk, so that no encoder computes one again for a sequence it has seen.

A cache is a folder with one folder per encoder and arithmetic in it, each with any number of shards that are never
changed. Whoever writes adds shards, so runs and ranks need not know of each other; a sequence that two of them
embedded is there twice, which harms nothing.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.data.embedding_shards import FORMAT_VERSION, SUFFIX, DamagedShardError, Shard, write_shard
from virnucpro_pl.errors import UserError

log = logging.getLogger(__name__)


class EncoderIdentities(NamedTuple):
    """What must be equal for two runs to get the same embeddings: weights and arithmetic, as text."""

    dna: str
    protein: str


class EncoderCaches(NamedTuple):
    """The caches of both encoders."""

    dna: "EmbeddingCache"
    protein: "EmbeddingCache"


def open_caches(folder: Path, identities: EncoderIdentities) -> EncoderCaches:
    """Open the caches of two encoders below ``folder``."""
    return EncoderCaches(*(EmbeddingCache(folder, identity) for identity in identities))


def make_cache_folder(folder: str | Path) -> Path:
    """Return the folder of a cache, made where it is missing.

    Raises:
        UserError: it cannot be made.
    """
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data.embedding_cache={folder}: {error.strerror}; give another folder, or null") from error
    return path


def content_keys(sequences: Sequence[bytes]) -> NDArray[np.uint64]:
    """(N, 2): 128-bit BLAKE2b digests of sequences, each as two numbers."""
    digests = b"".join([hashlib.blake2b(sequence, digest_size=16).digest() for sequence in sequences])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64).reshape(-1, 2)


class EmbeddingCache:
    """The embeddings of one encoder; what is added while it is open is found by those who open it later.

    Instances travel to worker processes as the paths of the shards, so all processes of a run find the same.

    Args:
        root: folder of the cache.
        identity: tells the encoder and its arithmetic apart.
        shards: the files to open; None for all there are.
    """

    def __init__(self, root: Path, identity: str, shards: Sequence[Path] | None = None):
        self._root = root
        self._identity = identity
        self._folder = root / hashlib.sha256(f"{FORMAT_VERSION} {identity}".encode()).hexdigest()[:16]
        paths = sorted(self._folder.glob(f"*{SUFFIX}")) if shards is None else shards
        self._shards = [shard for shard in map(self._open, paths) if shard]

    def __reduce__(self) -> tuple[type["EmbeddingCache"], tuple[Path, str, list[Path]]]:
        return EmbeddingCache, (self._root, self._identity, [shard.path for shard in self._shards])

    @property
    def width(self) -> int | None:
        """D of the embeddings; None where there are none."""
        return self._shards[0].width if self._shards else None

    def holds_all(self, keys: NDArray[np.uint64]) -> bool:
        """Whether there is an undamaged embedding for each of (N, 2) keys."""
        return bool(self.find(keys)[0].all())

    def find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
        """Return (N,) whether each of (N, 2) keys is found, and the (C, D) embeddings of those found, None if C is 0.

        A damaged embedding is not found.
        """
        found, rows = self._locate(keys)
        embeddings = np.empty((len(keys), self.width or 0), dtype=np.float32)
        for number, shard in enumerate(list(self._shards)):
            here = np.flatnonzero(found == number)
            if not len(here):
                continue
            embeddings[here], is_sound = shard.read(rows[here])
            if not is_sound.all():
                found[here[~is_sound]] = -1
                self._set_aside(shard.path, f"{np.count_nonzero(~is_sound)} embeddings are not as they were written")
                self._shards.remove(shard)
        is_found = found >= 0
        return is_found, embeddings[is_found] if is_found.any() else None

    def write(self, keys: NDArray[np.uint64], embeddings: NDArray[np.float32]) -> None:
        """Add (N, D) embeddings of sequences with (N, 2) keys.

        Raises:
            OSError: they cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        _, first = np.unique(keys, axis=0, return_index=True)
        write_shard(self._folder, self._identity, keys[first], embeddings[first])
        description = self._folder / "encoder.json"
        if not description.exists():
            description.write_text(self._identity + "\n", encoding="utf-8")

    def _locate(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (N,) the number of the shard each key is in, -1 for none, and (N,) its row there."""
        shards, rows = np.full(len(keys), -1), np.zeros(len(keys), dtype=np.int64)
        for number, shard in enumerate(self._shards):
            missing = np.flatnonzero(shards < 0)
            is_here, places = shard.find(keys[missing])
            shards[missing[is_here]], rows[missing[is_here]] = number, places[is_here]
        return shards, rows

    def _open(self, path: Path) -> Shard | None:
        try:
            return Shard(path, self._identity)
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
