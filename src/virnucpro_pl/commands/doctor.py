"""The ``doctor`` command: check that this machine can run a model."""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from omegaconf import DictConfig

from virnucpro_pl.api import Predictor
from virnucpro_pl.configuration.hydra_config import build
from virnucpro_pl.errors import MachineNotReadyError, UserError, is_out_of_memory
from virnucpro_pl.execution.checkup import Finding, State, check_disk, check_machine, check_model, on_terminal
from virnucpro_pl.execution.trainer import build_score_trainer
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.models.weights.head_source import HeadSource
from virnucpro_pl.models.weights.sources import DnabertSSource, Esm2Source

_READ = "ATGGCTGCTAAAGCTGGTCTGGATGAACGT" * 5
log = logging.getLogger(__name__)


def doctor(cfg: DictConfig) -> float:
    """Check devices, kernels, weights and disk; return 0.

    Raises:
        UserError: the device is missing.
        MachineNotReadyError: a problem prevents predictions.
    """
    trainer = build_score_trainer(cfg)
    device = trainer.strategy.root_device
    checks = itertools.chain(check_machine(device), check_model(build(cfg.model)), check_disk(Path(cfg.output)))
    states: Counter[State] = Counter()
    for finding in itertools.chain(checks, _try_model(cfg, states)):
        log.info("%s", on_terminal(finding))
        states[finding.state] += 1
    if problems := states["fix"]:
        raise MachineNotReadyError(
            f"{problems} problem(s) found; fix them before you predict with model={cfg.model.name}"
        )
    log.info("Ready: model=%s can predict here", cfg.model.name)
    return 0.0


def _sources(cfg: DictConfig) -> Iterable[HeadSource | DnabertSSource | Esm2Source]:
    model: VirNucPro = build(cfg.model)
    return model.sources().values()


def _try_model(cfg: DictConfig, states: Counter[State]) -> Iterator[Finding]:
    """Load the model and score one read, if ``load`` is set and there is no other problem."""
    if not cfg.load or states["fix"] or any(source.on_disk() is None for source in _sources(cfg)):
        return
    began = time.perf_counter()
    try:
        score = Predictor.of_configuration(cfg).predict(_READ)["max_virus_score"][0].as_py()
    except (UserError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        advice = "; another program may hold the memory" if is_out_of_memory(error) else ""
        yield Finding("fix", "prediction", f"failed: {reason[:300]}{advice}")
    else:
        seconds = time.perf_counter() - began
        yield Finding("ok", "prediction", f"loaded the model and scored a read in {seconds:.1f} s (score {score:.3f})")
