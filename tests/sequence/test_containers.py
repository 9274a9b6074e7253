"""F11: what follows the end of a container, in every container, and members however they are cut."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequence.test_records import COMPRESSORS, bgzip_compress, zstd
from virnucpro_pl.errors import UserError
from virnucpro_pl.sequence.containers import Members, compression_of
from virnucpro_pl.sequence.records import read_records

FASTA = b">a first\nACGT\nAC\n>b\nGG\n"
CONTAINERS = {name: compress for name, compress in COMPRESSORS.items() if name != "none"}
PADDINGS = {
    "line end": b"\n",
    "Windows line end": b"\r\n",
    "blanks": b" \t \n\n",
    "tape block": bytes(512),
    "much": bytes(300_000),
}


def read(data: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    return [name for block in read_records("-") for name in block.names]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_padding_after_the_end_is_not_called_damage(monkeypatch, container: str, padding: str) -> None:
    """F11: as gzip does, also between members."""
    whole = CONTAINERS[container](FASTA)
    assert read(whole + PADDINGS[padding], monkeypatch) == ["a", "b"]
    assert read(whole + PADDINGS[padding] + whole, monkeypatch) == ["a", "b", "a", "b"]


@pytest.mark.parametrize("container", CONTAINERS)
def test_records_after_the_end_are_not_dropped_in_silence(monkeypatch, container: str) -> None:
    """F11: a plain file joined to a compressed one, which most readers lose, is refused, and not called cut short."""
    another = lzma.compress if container == "bz2" else bz2.compress
    for rest in (b">c\nACGT\n", b"garbage", b"\n\n@", b"\xb5\n\x1b[2J", another(FASTA)):
        with pytest.raises(UserError, match="other data follow the end of the compressed data") as refused:
            read(CONTAINERS[container](FASTA) + rest, monkeypatch)
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_second_member_cut_anywhere_is_cut_short(monkeypatch, container: str) -> None:
    whole = CONTAINERS[container](FASTA)
    for end in range(1, len(whole.rstrip(b"\0"))):
        if container == "pzstd" and end in (1, 2, 3, 12):  # the first bytes of a skippable frame, and all of it
            continue
        with pytest.raises(UserError, match="truncated"):
            read(whole + whole[:end], monkeypatch)


pack = st.sampled_from([gzip.compress, bgzip_compress, bz2.compress, lzma.compress, zstd.compress])
padding = st.text("\0 \t\r\n", max_size=40).map(str.encode)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.data(), pack, st.integers(1, 1 << 17))
def test_members_with_padding_give_what_was_packed(data: st.DataObject, pack: Callable[[bytes], bytes], size) -> None:
    """Against the content itself: any number of members, empty ones too, of any size, read in pieces of any size."""
    contents = data.draw(st.lists(st.binary(max_size=50) | st.just(bytes(200_000)), min_size=1, max_size=4))
    packed = b"".join(pack(content) + data.draw(padding) for content in contents)
    members = Members(io.BytesIO(packed), compression_of(packed))
    found = b"".join(iter(lambda: members.read(size), b""))
    assert found == b"".join(contents)


def test_gzip_with_every_optional_field_is_read(monkeypatch) -> None:
    """Names, comments, further fields and header checksums, as other programs write them."""
    body = gzip.compress(FASTA, mtime=0)[10:]
    extra, name, comment = b"\4\0abcd", b"name\0", b"comment\0"
    for flags, fields in ((8, name), (16, comment), (4, extra), (28, extra + name + comment), (1, b"")):
        assert read(b"\x1f\x8b\x08" + bytes([flags]) + bytes(4) + b"\0\3" + fields + body, monkeypatch) == ["a", "b"]


def test_gzip_with_reserved_flags_is_damaged(monkeypatch) -> None:
    whole = gzip.compress(FASTA)
    for flag in (0x20, 0x40, 0x80):
        with pytest.raises(UserError, match="reserved flags"):
            read(whole[:3] + bytes([whole[3] | flag]) + whole[4:], monkeypatch)
