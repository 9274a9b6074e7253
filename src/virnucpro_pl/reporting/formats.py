"""Files that a run writes beside its result files, as set under ``formats``."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from virnucpro_pl.errors import UserError
from virnucpro_pl.files.output_files import FORMAT_FILES
from virnucpro_pl.reporting.downstream_tables import write_bed, write_kraken, write_multiqc
from virnucpro_pl.reporting.page import write_report
from virnucpro_pl.reporting.sequence_files import records_of_inputs, records_of_store, write_fastq, write_nonviral
from virnucpro_pl.runs.record_types import RunRecord
from virnucpro_pl.sequence.streams import can_be_read_again, shown_name

EXTRA_FILES = tuple(itertools.chain.from_iterable(FORMAT_FILES.values()))
"""Names of all these files"""


class Formats(NamedTuple):
    """Requested formats, written after the result files; all can be made again from these and the input."""

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
    """two files that MultiQC finds"""

    def check(self, inputs: list[str]) -> None:
        """Raise UserError if ``fastq`` is set and an input is a stream: qualities must be read again."""
        for path in inputs if self.fastq else ():
            if not can_be_read_again(path):
                raise UserError(
                    f"formats.fastq=true reads the input again, and {shown_name(path)} is no regular file; give a file,"
                    " or formats.nonviral=true, which needs none"
                )

    def missing(self, written: dict[str, list[str]]) -> "Formats":
        """Return the requested formats that are not in ``written``."""
        return Formats(*(wanted and key not in written for key, wanted in self._asdict().items()))

    def write(
        self, folder: Path, run: RunRecord, inputs: list[str], store: Path | None
    ) -> Iterator[tuple[str, list[str]]]:
        """Write the formats of a run whose result files exist.

        Args:
            folder: output folder.
            run: run record.
            inputs: paths of the input files.
            store: folder of the ORF store; None if it was removed.

        Yields:
            Each format with the names of its files, once they are written.

        Raises:
            UserError: an input was changed or cannot be read again; all formats that do not need it are written first.
        """
        sources = run["counts"]["inputs"]
        if self.kraken:
            yield "kraken", write_kraken(folder)
        if self.bed:
            yield "bed", write_bed(folder)
        if self.multiqc:
            yield "multiqc", write_multiqc(folder, run)
        if self.report:
            yield "report", [write_report(folder, run).name]
        if self.nonviral:
            yield (
                "nonviral",
                write_nonviral(folder, records_of_store(store) if store else records_of_inputs(inputs, sources)),
            )
        if self.fastq:
            yield "fastq", write_fastq(folder, inputs, sources)
