"""Digests are right, and unchanged files are not read again."""

import hashlib
import os
from pathlib import Path

import pytest

from virnucpro_pl.files.digests import sha256_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.bin").write_bytes(b"weights")
    return folder


@pytest.fixture
def digest_cache(tmp_path: Path) -> Path:
    return tmp_path / "digest_cache.json"


def expected(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_every_file_of_a_folder_is_hashed(folder, digest_cache):
    assert sha256_of(folder) == sha256_of(folder, digest_cache) == sha256_of(folder, digest_cache) == expected(folder)
    assert sha256_of(folder / "model.bin", digest_cache) == {"model.bin": expected(folder)["model.bin"]}


def test_a_file_is_read_once(folder, digest_cache):
    digest = sha256_of(folder, digest_cache)["model.bin"]
    digest_cache.write_text(digest_cache.read_text().replace(digest, "as noted"))

    assert sha256_of(folder, digest_cache)["model.bin"] == "as noted"


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_of_equal_size_and_time_is_read_again(folder, digest_cache, replace, tmp_path):
    """``cp -p``, ``tar`` and ``rsync -t`` restore the time of change."""
    sha256_of(folder, digest_cache)
    file = folder / "model.bin"
    state = file.stat()
    if replace:
        file.rename(tmp_path / "old.bin")
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)

    assert sha256_of(folder, digest_cache) == expected(folder)


@pytest.mark.parametrize("change", [b"WEIGHTS", b"longer weights"])
def test_a_changed_file_is_read_again(folder, digest_cache, change):
    sha256_of(folder, digest_cache)
    file = folder / "model.bin"
    later = file.stat().st_mtime_ns + (10**6 if len(change) == 7 else 0)
    file.write_bytes(change)
    os.utime(file, ns=(later, later))

    assert sha256_of(folder, digest_cache) == expected(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"a": [1]}', "\x00"])
def test_a_damaged_cache_is_replaced(folder, digest_cache, content):
    digest_cache.write_text(content)

    assert sha256_of(folder, digest_cache) == expected(folder)
    assert sha256_of(folder, digest_cache) == expected(folder)


def test_an_unwritable_cache_is_ignored(folder, tmp_path):
    assert sha256_of(folder, tmp_path / "nowhere" / "digest_cache.json") == expected(folder)
    assert not (tmp_path / "nowhere").exists()
