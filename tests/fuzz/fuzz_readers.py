"""Coverage-guided fuzzing of the readers: whatever the bytes, records or one line, never anything else.

By hand, as it runs until it is stopped (``-max_total_time=SECONDS``) and writes what it finds beside it::

    pip install -c requirements.lock -e '.[fuzz,test]'
    python tests/fuzz/fuzz_readers.py CORPUS_FOLDER -max_total_time=600 -max_len=4096

The folder is filled with seeds first: every format in every compression. The first byte of an input says how large
blocks are. A finding becomes a case of ``tests/sequence/test_any_bytes.py``.
"""

import bz2
import gzip
import io
import lzma
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["virnucpro_pl.sequence"]):
    from virnucpro_pl.errors import UserError
    from virnucpro_pl.sequence import records

_BLOCK_BYTES = (1, 7, 64, 1 << 10, 1 << 20)


def seeds() -> dict[str, bytes]:
    """Small files of every kind."""
    import pysam

    fasta = b"\xef\xbb\xbf\n; comment\r\n>a first\r\nACGT NN\r\n\r\n>b\nacgtRYK\n>\n>d"
    fastq = b"@a 1:N:0:ACGT\nACGT\n+\nIIII\n@a 2:N:0:ACGT\nGG\n+\nII\n"
    line = b"r\t77\t*\t0\t0\t*\t*\t0\t0\tACGT\tIIII\tNM:i:0\nr\t141\t*\t0\t0\t*\t*\t0\t0\t*\t*\n"
    plain = {"fasta": fasta, "fastq": fastq, "sam": b"@HD\tVN:1.6\n@CO\tx\n" + line, "headerless": line}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "reads.sam").write_bytes(plain["sam"])
        for kind, mode in (("bam", "wb"), ("cram", "wc")):
            with pysam.AlignmentFile(f"{folder}/reads.sam", check_sq=False) as source:
                with pysam.AlignmentFile(f"{folder}/reads.{kind}", mode, template=source) as target:
                    for read in source.fetch(until_eof=True):
                        target.write(read)
            plain[kind] = (Path(folder) / f"reads.{kind}").read_bytes()
    plain["raw_bam"] = gzip.decompress(plain["bam"])
    packers = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    packed = {f"{kind}.{end}": pack(data) for kind, data in plain.items() for end, pack in packers.items()}
    return {
        f"{kind}.{number}": bytes([number]) + data
        for kind, data in {**plain, **packed}.items()
        for number in (1, len(_BLOCK_BYTES) - 1)
    }


def read_any_bytes(data: bytes) -> None:
    """Read the bytes as standard input, in blocks of the size that the first byte names."""
    size, content = data[:1], data[1:]
    records.BLOCK_BYTES = _BLOCK_BYTES[size[0] % len(_BLOCK_BYTES)] if size else 1
    sys.stdin = io.TextIOWrapper(io.BytesIO(content))
    facts = records.InputFacts()
    try:
        for block in records.read_records("-", facts):
            assert len(block.names) == len(block.descriptions) == len(block.lengths) > 0
            assert block.lengths.sum() == len(block.letters)
            assert not any("\n" in name or "\t" in name for name in block.names)
    except UserError as error:
        if "\n" in str(error):
            raise AssertionError("a message of several lines") from error


def main() -> None:
    """Write the seeds and fuzz."""
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        folder = Path(sys.argv[1])
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds().items():
            (folder / name).write_bytes(data)
    atheris.Setup(sys.argv, read_any_bytes)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
