"""The ``prepare`` command: dataset of labelled genomes."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from virnucpro_pl.configuration.hydra_config import build
from virnucpro_pl.errors import escaped
from virnucpro_pl.execution.provenance import provenance
from virnucpro_pl.runs.output_folder import refuse_within
from virnucpro_pl.training.dataset_writer import DatasetWriter, appearing
from virnucpro_pl.training.fragments import Cutter, LengthRange
from virnucpro_pl.training.genomes import read_genomes
from virnucpro_pl.training.preparation import PrepareSettings, choose, find_candidates, read_examples

log = logging.getLogger(__name__)

_TELL_SECONDS = 30.0


def prepare(cfg: DictConfig) -> float:
    """Prepare a dataset.

    Returns:
        Number of ORFs of the dataset.

    Raises:
        UserError: the configuration, the table or a file has a mistake.
    """
    began = time.monotonic()
    settings: PrepareSettings = build(cfg.data)
    settings.check()
    lengths = LengthRange.parse(settings.chunk_length)
    cutter = Cutter(lengths, settings.chunking, settings.depth, cfg.seed)
    genomes = read_genomes(Path(cfg.input))
    read = [path for genome in genomes for path in (genome.path, genome.annotation) if path]
    refuse_within(Path(cfg.paths.output_dir), read)
    with appearing(Path(cfg.paths.output_dir), cfg.overwrite) as folder:
        files = [find_candidates(genome, settings, cutter) for genome in _logged(genomes, "Translating")]
        chosen = choose(files, genomes, settings)
        longest = _longest(lengths, settings)
        writer = DatasetWriter(folder, genomes, files, settings, longest)
        for genome, file, some in zip(_logged(genomes, "Writing"), files, chosen, strict=True):
            writer.write_file(genome, file, some, read_examples(genome, file, some, settings, cutter))
        record = provenance(cfg, began)
        content = writer.finish({key: record[key] for key in ("version", "command", "started", "seconds")}, cfg.seed)
    for line in _summary(content):
        log.info("%s", escaped(line))
    log.info("Dataset: %s (next: train input=%s)", cfg.paths.output_dir, cfg.paths.output_dir)
    return float(sum(counts["orfs"] for counts in content["counts"].values()))


def _longest(lengths: LengthRange, settings: PrepareSettings) -> int:
    """Return the largest length of a fragment in nt, with an insertion after each base if there are errors."""
    return lengths.longest * (2 if settings.errors.insertions else 1)


def _logged(genomes: list[Any], doing: str) -> Iterator[Any]:
    """Yield the files, and log the progress from time to time."""
    last_logged = time.monotonic()
    for number, genome in enumerate(genomes, start=1):
        if time.monotonic() - last_logged >= _TELL_SECONDS:
            last_logged = time.monotonic()
            log.info("%s: file %d of %d, %s", doing, number, len(genomes), escaped(genome.file))
        yield genome


def _summary(content: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the summary."""
    for name, counts in content["counts"].items():
        dropped = {
            "with letters other than A, C, G, T": counts["ambiguous"],
            "without a frame that counts": counts["without_orf"],
        }
        dropped["not sampled"] = counts["fragments"] - sum(dropped.values()) - counts["examples"]
        left_out = ", ".join(f"{count:,} {why}" for why, count in dropped.items() if count) or "none"
        yield (
            f"  {name:<6} {counts['files']:,} files, {counts['groups']:,} groups, {counts['records']:,} records,"
            f" {counts['bases']:,} bases: {counts['examples']:,} fragments with {counts['orfs']:,} ORFs;"
            f" left out: {left_out}"
        )
