"""The ``embed`` command: embeddings for training heads."""

from pathlib import Path

from omegaconf import DictConfig

from virnucpro_pl.configuration.hydra_config import build
from virnucpro_pl.distributed.first_rank import check_output_is_named
from virnucpro_pl.execution.embedding import embed_into
from virnucpro_pl.execution.trainer import build_trainer
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.models.virnucpro import VirNucPro


def embed(cfg: DictConfig) -> float:
    """Embed the ORFs of a dataset, or of sequence files.

    Returns:
        Tokens per second of the encoders together; NaN on ranks other than the first.

    Raises:
        UserError: the configuration, the input or the weights have a mistake.
        OutOfMemoryError: the device or the host has too little memory.
        RankLostError: another process of the run is gone.
    """
    trainer = build_trainer(cfg, clock := StageClock())
    check_output_is_named(cfg, trainer)
    model: VirNucPro = build(cfg.model, head=None, clock=clock)
    output, work = Path(cfg.paths.output_dir), Path(cfg.paths.work_dir)
    return embed_into(cfg, trainer, clock, model, output, work)
