"""The embedding cache: what was written is found, nothing else is, whatever happens to its files."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_pl.data.embedding_cache import EmbeddingCache, content_keys
from virnucpro_pl.data.embedding_shards import DamagedShardError, Shard

WIDTH = 5
SEQUENCES = st.lists(st.binary(max_size=3), max_size=12)


def embeddings_of(sequences: list[bytes]) -> np.ndarray:
    """A vector per sequence that only it has."""
    numbers = [int.from_bytes(b"\1" + sequence, "big") for sequence in sequences]
    return np.array(numbers, dtype=np.float32).reshape(-1, 1) + np.linspace(0, 0.5, WIDTH, dtype=np.float32)


def filled(root: Path, *shards: list[bytes], fingerprint: str = "encoder") -> EmbeddingCache:
    """A cache opened after these sequences were written to it, shard by shard."""
    for sequences in shards:
        if sequences:
            EmbeddingCache(root, fingerprint).write(content_keys(sequences), embeddings_of(sequences))
    return EmbeddingCache(root, fingerprint)


def shard_files(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.arrow"))


@settings(deadline=None)
@given(written=st.lists(SEQUENCES, max_size=4), asked=SEQUENCES)
def test_a_sequence_is_found_if_and_only_if_it_was_written(tmp_path_factory, written, asked):
    cache = filled(tmp_path_factory.mktemp("cache"), *written)
    known = {sequence for sequences in written for sequence in sequences}
    asked = [*asked, *known]

    is_found, embeddings = cache.find(content_keys(asked))

    assert is_found.tolist() == [sequence in known for sequence in asked]
    if known:
        np.testing.assert_array_equal(embeddings, embeddings_of([sequence for sequence in asked if sequence in known]))
        assert embeddings.dtype == np.float32
        assert cache.width == WIDTH
    else:
        assert embeddings is cache.width is None
    assert cache.holds_all(content_keys(asked)) == (set(asked) <= known)


def test_keys_are_blake2b_of_the_sequence():
    """As ``printf abc | b2sum -l 128`` has it: a cache is read by programs to come."""
    assert content_keys([b"abc"]).astype("<u8").tobytes().hex() == "cf4ab791c62b8d2b2109c90275287816"
    assert content_keys([]).shape == (0, 2)


def test_encoders_do_not_see_each_others_embeddings(tmp_path):
    filled(tmp_path, [b"A"], fingerprint="encoder in float16")

    assert not filled(tmp_path, fingerprint="encoder in float32").find(content_keys([b"A"]))[0].any()
    assert filled(tmp_path, fingerprint="encoder in float16").find(content_keys([b"A"]))[0].all()


def test_a_process_opens_the_shards_its_parent_saw(tmp_path):
    cache = filled(tmp_path, [b"A"])
    filled(tmp_path, [b"B"])

    copy = pickle.loads(pickle.dumps(cache))

    assert copy.find(content_keys([b"A", b"B"]))[0].tolist() == [True, False]
    assert filled(tmp_path).find(content_keys([b"A", b"B"]))[0].all()


def test_nothing_unfinished_is_left_and_the_folder_says_what_it_holds(tmp_path):
    filled(tmp_path, [b"A"], [b"B"])
    (folder,) = tmp_path.iterdir()

    assert (folder / "encoder.json").read_text() == "encoder\n"
    assert {path.suffix for path in folder.iterdir()} == {".json", ".arrow"}


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """Cut short, bits turned over, or a stretch of zeros, as disks leave it."""
    kind = data.draw(st.sampled_from(["cut", "turned", "zeros"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        return content[:place]
    if kind == "turned":
        return content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    length = data.draw(st.integers(1, 600))
    return content[:place] + bytes(len(content[place : place + length])) + content[place + length :]


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_damaged_file_never_gives_a_wrong_embedding(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("cache")
    sequences = [bytes([number]) for number in range(20)]
    filled(root, sequences)
    (path,) = shard_files(root)
    path.write_bytes(damaged(path.read_bytes(), data))
    cache = EmbeddingCache(root, "encoder")

    is_found, embeddings = cache.find(content_keys(sequences))

    wanted = embeddings_of([sequence for sequence, found in zip(sequences, is_found, strict=True) if found])
    np.testing.assert_array_equal(np.empty((0, WIDTH)) if embeddings is None else embeddings, wanted)


def other_encoders(path: Path) -> None:
    foreign = filled(path.parents[1] / "elsewhere", [b"A"], fingerprint="another encoder")
    path.write_bytes(shard_files(path.parents[1] / "elsewhere")[0].read_bytes())
    assert foreign.find(content_keys([b"A"]))[0].all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        lambda path: path.write_text("this is no Arrow file"),
        other_encoders,
    ],
)
def test_a_file_that_is_no_shard_of_ours_is_set_aside_and_said(tmp_path, caplog, damage):
    filled(tmp_path, [b"A"])
    (path,) = shard_files(tmp_path)
    damage(path)
    filled(tmp_path, [b"B"])

    with caplog.at_level(logging.WARNING):
        cache = EmbeddingCache(tmp_path, "encoder")

    assert cache.find(content_keys([b"A", b"B"]))[0].tolist() == [False, True]
    assert not path.exists()
    assert path.with_suffix(".damaged").exists()
    (told,) = caplog.messages
    assert str(path) in told
    assert "set aside" in told


def test_a_damaged_embedding_is_not_found_and_its_file_set_aside(tmp_path, caplog):
    cache = filled(tmp_path, [b"A", b"B", b"C"])
    (path,) = shard_files(tmp_path)
    value = embeddings_of([b"B"])[0].tobytes()
    content = path.read_bytes()
    assert content.count(value) == 1
    path.write_bytes(content.replace(value, value[::-1]))
    cache = EmbeddingCache(tmp_path, "encoder")

    is_found, embeddings = cache.find(content_keys([b"A", b"B", b"C"]))

    assert is_found.tolist() == [True, False, True]
    np.testing.assert_array_equal(embeddings, embeddings_of([b"A", b"C"]))
    assert "set aside" in caplog.text
    assert not shard_files(tmp_path)
    assert not EmbeddingCache(tmp_path, "encoder").find(content_keys([b"A"]))[0].any()


def test_a_file_of_another_width_is_no_shard(tmp_path):
    cache = EmbeddingCache(tmp_path, "encoder")
    cache.write(content_keys([b"A"]), np.ones((1, 3), dtype=np.float32))
    (path,) = shard_files(tmp_path)

    assert Shard(path, "encoder").width == 3
    with pytest.raises(DamagedShardError, match="another encoder"):
        Shard(path, "encoder 2")


def test_both_halves_of_a_key_count(tmp_path):
    keys = np.array([[1, 2], [1, 4], [3, 2]], dtype=np.uint64)
    EmbeddingCache(tmp_path, "encoder").write(keys[:1], np.ones((1, WIDTH), dtype=np.float32))

    assert EmbeddingCache(tmp_path, "encoder").find(keys)[0].tolist() == [True, False, False]
