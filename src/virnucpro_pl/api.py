"""Python interface: sequences to a table of calls, with a model that stays loaded."""

import logging
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from hydra.errors import HydraException
from lightning import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from virnucpro_pl.cli.settings_check import check_values
from virnucpro_pl.configuration.composition import composed
from virnucpro_pl.configuration.hydra_config import build
from virnucpro_pl.configuration.python_settings import as_override, check_python_settings
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.errors import UserError
from virnucpro_pl.execution.calling import checked_head, rules_of
from virnucpro_pl.files.digests import file_state
from virnucpro_pl.files.output_files import CHUNK_TABLE, ORF_TABLE, RECORD_TABLE
from virnucpro_pl.host.launchers import no_fabric_settings
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.results.reading import read_result_table
from virnucpro_pl.results.summary import DEMO_WARNING
from virnucpro_pl.results.tables import write_results
from virnucpro_pl.sequence.from_memory import as_files
from virnucpro_pl.sequence.streams import STDIN

Level = Literal["record", "chunk", "orf"]
Sequences = str | Path | Iterable[Any] | Mapping[str, str]
_FILES: dict[Level, str] = {"record": RECORD_TABLE, "chunk": CHUNK_TABLE, "orf": ORF_TABLE}

log = logging.getLogger(__name__)


class Predictor:
    """A model that is loaded once and predicts on one device.

    Args:
        model: name of a configuration: ``demo``, ``virnucpro_300``, ``virnucpro_500``.
        settings: further settings as on the command line of ``predict``, such as ``model.head.weights`` or
            ``trainer.accelerator``, by name.

    Raises:
        UserError: a setting or the weights have a mistake.

    Example:
        >>> predictor = Predictor("demo", {"trainer.accelerator": "cpu"})
        >>> predictor.predict({"read": "ATGGCTGCTGCTGCTGCTGCT" * 8}).column("status").to_pylist()
        ['called']
    """

    def __init__(self, model: str = "demo", settings: Mapping[str, Any] | None = None):
        with _one_at_a_time:
            self._set_up(configuration_of(model, {} if settings is None else settings))

    @classmethod
    def of_configuration(cls, cfg: DictConfig) -> "Predictor":
        """Return the predictor of a configuration with ``model``, ``data``, ``results`` and ``trainer``.

        Raises:
            UserError: a setting or the weights have a mistake.
        """
        predictor = cls.__new__(cls)
        with _one_at_a_time:
            predictor._set_up(cfg)
        return predictor

    def _set_up(self, cfg: DictConfig) -> None:
        self._cfg = cfg
        self.model: VirNucPro = build(self._cfg.model)
        head = checked_head(self.model, self._cfg.data.chunk_length)
        self._rules = rules_of(build(self._cfg.results), head)
        trainer = self._cfg.trainer
        logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # its hints do not apply
        self._fabric = _fabric(trainer.accelerator)
        if trainer.precision or (self._fabric.device.type == "cuda" and not self._cfg.model.exact):
            self._fabric = _fabric(trainer.accelerator, precision=trainer.precision or "16-true")
        if self.model.demo:
            log.warning("Model %s: %s", self.model.name, DEMO_WARNING)
        with self._fabric.init_module():
            self.model.configure_model()
        self._scorer = self._fabric.setup_module(self.model)
        self._scorer.mark_forward_method("predict_step")
        self.model.apply_numerics()

    @property
    def device(self) -> torch.device:
        """Return the device of the model."""
        return self._fabric.device

    def predict(self, sequences: Sequences, level: Level = "record") -> pa.Table:
        """Call sequences viral or not.

        Args:
            sequences: a path or several, in any format that ``predict`` reads; one sequence or several; pairs of name
                and sequence, or a mapping; records with ``id`` and ``seq``, such as Biopython's.
            level: kind of rows: ``record`` (columns of ``sequences.tsv``), ``chunk`` (of ``predictions.parquet``) or
                ``orf`` (of ``prediction_results.txt``).

        Returns:
            A table in the order of the input; ``to_pandas()`` converts it. ``file`` is ``-`` for sequences in memory.

        Raises:
            UserError: an input cannot be read.
        """
        if level not in get_args(Level):
            raise UserError(f"level={level!r}: choose one of {', '.join(get_args(Level))}")
        with tempfile.TemporaryDirectory(prefix="virnucpro-") as temporary:
            folder = Path(temporary)
            inputs, shown = as_files(sequences, folder)
            try:
                with _one_at_a_time:
                    return self._table(inputs, shown, folder, level)
            except UserError as error:
                if shown == [STDIN]:  # the file is temporary
                    raise UserError(str(error).replace(inputs[0], "sequences")) from error
                raise

    def _table(self, inputs: list[str], shown: list[str], folder: Path, level: Level) -> pa.Table:
        """Predict files and return the table.

        Args:
            inputs: paths of the files.
            shown: their names in the table.
            folder: folder of temporary files.
            level: kind of rows.
        """
        datamodule: FastaDataModule = build(
            self._cfg.data,
            input=inputs,
            store_dir=str(folder / "store"),
            embedding_cache=None,
            modality=self.model.inputs,
            whole_chunks=self.model.fallback_source is not None,
        )
        datamodule.prepare_data()
        datamodule.setup("predict")
        scores = self._scores(datamodule)
        results = folder / "results"
        write_results(datamodule.store.folder, shown, scores, results, self._rules, StageClock())
        return read_result_table(results / _FILES[level])

    def _scores(self, datamodule: FastaDataModule) -> NDArray[np.float32]:
        """Return the scores of ``others`` and ``virus``, (orfs, 2)."""
        scores = np.full((datamodule.store.num_orfs, 2), np.nan, dtype=np.float32)
        with torch.inference_mode():
            for number, batch in enumerate(datamodule.predict_dataloader()):
                scored = self._scorer.predict_step(self._fabric.to_device(batch), number)
                scored.wait()
                scores[scored.orfs.numpy()] = scored.scores.numpy()
        for pairs in datamodule.duplicates.blocks() if datamodule.duplicates else ():
            scores[pairs[:, 0]] = scores[pairs[:, 1]]
        if not np.isfinite(scores).all():
            raise UserError("some scores are NaN or infinite; give the setting trainer.precision=32-true")
        return scores


def _fabric(accelerator: str, **settings: Any) -> Fabric:
    """Return a Fabric of one process, independent of the variables of launchers.

    Raises:
        UserError: the accelerator or precision is not available.
    """
    try:
        with no_fabric_settings():
            return Fabric(accelerator=accelerator, devices=1, plugins=LightningEnvironment(), **settings)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


def predict(
    sequences: Sequences, model: str = "demo", *, level: Level = "record", settings: Mapping[str, Any] | None = None
) -> pa.Table:
    """Call sequences viral or not; the model stays loaded for the next call with the same settings.

    Args:
        sequences: a path or several, one sequence or several, pairs of name and sequence, a mapping, or records.
        model: name of a configuration: ``demo``, ``virnucpro_300``, ``virnucpro_500``.
        level: kind of rows: ``record``, ``chunk`` or ``orf``.
        settings: further settings of ``predict``, by name, such as ``{"model.head.weights": "500_model.pth"}``.

    Returns:
        A table in the order of the input, as of ``Predictor.predict``.

    Raises:
        UserError: a setting, the weights or the input have a mistake.
    """
    return _predictor(model, {} if settings is None else settings).predict(sequences, level)


def _predictor(model: str, settings: Mapping[str, Any]) -> Predictor:
    """Return the predictor of the last call, or a new one for other settings."""
    global _kept
    check_python_settings(settings)
    key = repr((model, sorted(settings.items()), Path.cwd(), [_state(value) for value in settings.values()]))
    with _one_at_a_time:
        if _kept is None or _kept[0] != key:
            _kept = None  # free its memory for the next one
            _kept = key, Predictor(model, settings)
        return _kept[1]


def _state(value: Any) -> list[int] | None:
    """Return the state of a file, which changes when it is replaced."""
    try:
        found = Path(value).stat() if isinstance(value, str | Path) and value else None
    except (OSError, ValueError):
        return None
    return found and file_state(found)


_one_at_a_time = threading.RLock()
"""Lock around composition, loading and scoring: Hydra's state and torch's default dtype belong to the process"""
_kept: tuple[str, Predictor] | None = None
"""Settings of the last call, and their predictor"""


def configuration_of(model: object, settings: Mapping[str, Any]) -> DictConfig:
    """Compose the configuration of ``predict`` as on the command line.

    Args:
        model: name of a configuration.
        settings: values by key.

    Raises:
        UserError: a key or a value is wrong.
    """
    check_python_settings(settings)
    if not isinstance(model, str):
        raise UserError(f"model is a {type(model).__name__}; give the name of a configuration, such as 'demo'")
    overrides = [as_override(key, value) for key, value in settings.items()]
    try:
        with _one_at_a_time:
            cfg = composed("predict", [f"model={model}", *overrides, "paths.output_dir=.", "input=[]"])
    except (HydraException, OmegaConfBaseException) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"model={model}, settings={dict(settings)}: {first.rstrip(chr(46))}") from error
    check_values(cfg, "predict")
    if cfg.data.token_budget == "auto":
        raise UserError("data.token_budget=auto: only the command line finds one; give a number, such as 16384")
    for key in ("devices", "num_nodes"):
        if cfg.trainer[key] != 1:
            raise UserError(f"trainer.{key}={cfg.trainer[key]}: in Python it is 1; use the command line for more")
    return cfg
