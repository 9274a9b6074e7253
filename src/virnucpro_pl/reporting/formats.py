"""Which files a run leaves beside its result files, as asked for under ``formats``."""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

from virnucpro_pl.errors import UserError
from virnucpro_pl.output_files import FORMAT_FILES
from virnucpro_pl.reporting.downstream_tables import write_bed, write_kraken, write_multiqc
from virnucpro_pl.reporting.page import write_report
from virnucpro_pl.reporting.sequence_files import write_fastq, write_nonviral
from virnucpro_pl.sequence.streams import STDIN

EXTRA_FILES = tuple(itertools.chain.from_iterable(FORMAT_FILES.values()))
"""Names of all that may be written"""


class Formats(NamedTuple):
    """What else is written, once the result files are; all of it can be made again from them and the input."""

    report: bool = True
    """``report.html``"""
    nonviral: bool = False
    """``nonviral.fasta`` and ``uncalled.fasta``"""
    fastq: bool = False
    """``viral.fastq.gz``, ``nonviral.fastq.gz`` and ``uncalled.fastq.gz``"""
    kraken: bool = False
    """``kraken.tsv``"""
    bed: bool = False
    """``viral_chunks.bed``"""
    multiqc: bool = False
    """Two files that MultiQC finds"""

    def check(self, inputs: list[str]) -> None:
        """Refuse what cannot be made of these inputs.

        Raises:
            UserError: standard input would have to be read again.
        """
        for key in ("nonviral", "fastq"):
            if getattr(self, key) and STDIN in inputs:
                raise UserError(f"formats.{key}=true reads the input again; give a file instead of standard input")

    def missing(self, written: dict[str, list[str]]) -> "Formats":
        """Return what is asked for and was not written before."""
        return Formats(*(wanted and key not in written for key, wanted in self._asdict().items()))

    def write(self, folder: Path, run: dict[str, Any], inputs: list[str]) -> dict[str, list[str]]:
        """Write into the output folder of a run whose result files are there.

        Args:
            folder: the output folder.
            run: what ``run.json`` holds or will hold.
            inputs: the files that were read, as they are called now.

        Returns:
            names of the files by format.
        """
        written = {}
        if self.nonviral:
            written["nonviral"] = write_nonviral(folder, inputs)
        if self.fastq:
            written["fastq"] = write_fastq(folder, inputs, run["counts"]["inputs"])
        if self.kraken:
            written["kraken"] = write_kraken(folder)
        if self.bed:
            written["bed"] = write_bed(folder)
        if self.multiqc:
            written["multiqc"] = write_multiqc(folder, run)
        if self.report:
            written["report"] = [write_report(folder, run).name]
        return written
