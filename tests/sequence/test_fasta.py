"""FASTA wherever its blocks are cut."""

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from virnucpro_pl.sequence.blocks import DamagedRecordError
from virnucpro_pl.sequence.fasta import whole_records


def records(blocks: list[bytes]) -> list[tuple[str, bytes]]:
    found = []
    for headers, letters, lengths, _ in whole_records(iter(blocks)):
        assert len(headers) == len(lengths) > 0
        ends = lengths.cumsum().tolist()
        assert ends[-1] == len(letters)
        found += [(h, letters[a:b]) for h, a, b in zip(headers, [0, *ends], ends, strict=False)]
    return found


def records_by_line(text: bytes) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for line in text.replace(b"\r", b"\n").split(b"\n"):
        if line.startswith(b">"):
            found.append((line[1:].decode(), b""))
        else:
            found[-1] = (found[-1][0], found[-1][1] + line)
    return found


@settings(deadline=None)
@given(st.lists(st.text(">AC \t\n\r", min_size=1, max_size=6)))
@example(["\nA", ">"])
def test_records_do_not_depend_on_where_blocks_are_cut(pieces: list[str]) -> None:
    blocks = [piece.encode() for piece in [">", *pieces]]
    text = b"".join(blocks)
    expected = records_by_line(text)
    if any(b">" in letters for _, letters in expected):  # F2: a header within a line of letters
        for same in (blocks, [text]):
            with pytest.raises(DamagedRecordError, match="'>' within the sequence"):
                records(same)
    else:
        assert records(blocks) == records([text]) == expected


def test_a_long_record_is_held_twice_at_most() -> None:
    """Chromosomes have hundreds of megabases, with line ends or without."""

    def blocks(line: bytes) -> Iterator[bytes]:
        yield b">chromosome\n"
        yield from [line] * 200

    for line in (b"ACGT" * 25_000, (b"ACGT" * 15 + b"\n") * 1666):
        tracemalloc.start()
        ((_, letters, _, _),) = whole_records(iter(blocks(line)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2.1 * len(letters)
