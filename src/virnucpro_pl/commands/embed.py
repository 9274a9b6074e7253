"""The ``embed`` command: from sequences to the embeddings that heads are trained on."""

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
        UserError: something in the configuration, the input or the weights must be mended.
        OutOfMemoryError: the device's memory, or the host's, does not suffice.
        RankLostError: another process of the run is gone.
    """
    trainer = build_trainer(cfg, clock := StageClock())
    check_output_is_named(cfg, trainer)
    model: VirNucPro = build(cfg.model, head=None, clock=clock)
    output, work = Path(cfg.paths.output_dir), Path(cfg.paths.work_dir)
    return embed_into(cfg, trainer, clock, model, output, work)
