"""Finished runs that reports are made of."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from Bio import SeqIO

from support import CHECKOUT, open_genome, run_here

DEMO = CHECKOUT / "src" / "virnucpro_pl" / "demo"
HOSTILE = (
    "<img/src=x/onerror=alert(1)>",
    '"><script>window.hacked=1</script>',
    "</script><script>window.hacked=2</script>",
    "{{7*7}}",
    "javascript:window.hacked=3",
    "&lt;b&gt;a-b,c",
    "<b>bold</b>",
)
"""Names that would do something in a page that took them for markup"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the demo model for contigs, reads and names of all kinds."""
    folder = tmp_path_factory.mktemp("finished")
    generator = np.random.default_rng(7)
    records = [(name, open_genome(generator, 90)) for name in HOSTILE]
    records += [(f"contig_{number}", open_genome(generator, 2000 + 700 * number)) for number in range(4)]
    records += [(f"read_{number}", open_genome(generator, 150 + number)) for number in range(40)]
    with gzip.open(DEMO / "sample.fasta.gz", "rt") as sample:
        records += [(record.id, str(record.seq)) for record in SeqIO.parse(sample, "fasta")]
    records += [("stops", "TAATTAATTAA" * 20), ("short", "AC"), ("unknown", "N" * 100), ("empty", "")]
    (folder / "in put.fa").write_text("".join(f">{name} more words\n{letters}\n" for name, letters in records))
    output = folder / "results"
    words = [f"input={folder / 'in put.fa'}", f"output={output}", "trainer.accelerator=cpu"]
    more = [f"formats.{name}=true" for name in ("nonviral", "kraken", "bed", "multiqc")]
    assert run_here("predict", *words, *more) == 0
    return output


@pytest.fixture
def changed(finished: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the finished run whose record was changed."""

    def change(edit: Callable[[dict], None]) -> Path:
        for path in finished.iterdir():
            if path.is_file():
                (tmp_path / path.name).write_bytes(path.read_bytes())
        run = json.loads((tmp_path / "run.json").read_text())
        edit(run)
        (tmp_path / "run.json").write_text(json.dumps(run))
        return tmp_path

    return change
