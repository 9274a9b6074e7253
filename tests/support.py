"""What tests need beside fixtures."""

import argparse
import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

TESTS = Path(__file__).parent
CHECKOUT = TESTS.parent
MINI = TESTS / "golden" / "mini"


PATIENCE = 300.0
"""Seconds after which a test takes what it waits for as hung; no machine is so busy"""


class Result(NamedTuple):
    """What a user sees of a command."""

    code: int
    out: str
    err: str


def model_overrides(golden: Path, head: str = "300") -> list[str]:
    """Command line that selects the models of a golden folder."""
    esm = next(path for path in (golden / "models" / "esm").glob("*.pt") if "contact" not in path.name)
    return [
        f"model=virnucpro_{head}",
        f"model.dna_encoder.weights={golden / 'models' / 'DNABERT-S'}",
        f"model.protein_encoder.weights={esm}",
        f"model.head.weights={golden / 'models' / 'mlp' / f'{head}_model.pth'}",
    ]


def run_here(*arguments: object) -> int:
    """Exit status of a command run in this process, as ``python -m virnucpro_pl`` would."""
    from virnucpro_pl import __main__ as program

    root = logging.getLogger()
    before = list(root.handlers), root.level
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "argv", ["virnucpro-pl", *map(str, arguments)])
        try:
            program.main()
        except SystemExit as exit_:
            return exit_.code if isinstance(exit_.code, int) else 1
        finally:
            for handler in set(root.handlers) - set(before[0]):
                root.removeHandler(handler)
                handler.close()
            root.handlers[:], root.level = before
    return 0


def file_name(text: str) -> str:
    """Name of a file whose bytes are the text in UTF-8, whatever the locale."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def load_safely(path: Path) -> Any:
    """Content of a fair-esm checkpoint, as plain objects."""
    import torch  # conftest sets its environment before it is imported

    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)


def read_table(path: Path) -> pa.Table:
    """All of one of the store's Arrow files."""
    return pa.ipc.open_file(pa.OSFile(os.fsencode(path))).read_all()


CODONS = {
    "A": ("GCT", "GCC", "GCA", "GCG"),
    "G": ("GGT", "GGC", "GGA", "GGG"),
    "P": ("CCT", "CCC", "CCA", "CCG"),
    "T": ("ACT", "ACC", "ACA", "ACG"),
    "V": ("GTT", "GTC", "GTA", "GTG"),
}


def synonymous_reads(seed: int, num_proteins: int = 12) -> str:
    """FASTA of reads that share much: synonymous codons, one base more or less, repeats, reverse complements."""
    generator = np.random.default_rng(seed)
    reads = []
    for length in generator.integers(20, 90, num_proteins):
        protein = generator.choice(list(CODONS), length)
        for more in ("", "A", "AC", ""):
            reads.append("".join(generator.choice(CODONS[residue]) for residue in protein) + more)
    reads += reads[::3]
    reads += [read[::-1].translate(str.maketrans("ACGT", "TGCA")) for read in reads[::4]]
    return "".join(f">read_{number}\n{read}\n" for number, read in enumerate(reads))


def open_genome(
    generator: np.random.Generator, length: int, shares: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)
) -> str:
    """Random bases with these shares of A, C, G, T and hardly any stop codons on either strand."""
    letters = "".join(generator.choice(list("ACGT"), length, p=shares))
    for stop in ("TAA", "TAG", "TGA", "TTA", "CTA", "TCA"):
        letters = letters.replace(stop, "GCC")
    return letters


FAST_TRAINING = (
    "trainer.accelerator=cpu",
    "logger.tensorboard=null",
    "split.shared=drop",
    "optimizer=adamw",
    "batch_size=16",
)
"""Settings of a training that takes seconds"""


def make_unfinished(folder: Path, **changes: object) -> None:
    """Leave what a training leaves that is killed, with changes to the settings it was started with."""
    run = json.loads((folder / "run.json").read_text())
    files = {name: [facts] for name, facts in run["files"].items()} | {name: [] for name in run["folders"]}
    (folder / ".work").mkdir()
    (folder / ".work" / "identity.json").write_text(json.dumps({"files": files, **run["identity"], **changes}))
    (folder / "run.json").unlink()
