"""The Python interface: sequences in, a table of calls out; the model stays loaded between calls."""

import logging
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from lightning import Fabric
from numpy.typing import NDArray
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pyarrow import csv

from virnucpro_pl.arrow_files import to_read
from virnucpro_pl.calling import checked_head, rules_of
from virnucpro_pl.configuration import CONF, register_resolvers
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.errors import UserError
from virnucpro_pl.module import VirNucPro
from virnucpro_pl.results.summary import DEMO_WARNING
from virnucpro_pl.results.tables import CHUNK_TABLE, ORF_TABLE, RECORD_TABLE, write_results
from virnucpro_pl.sequence_input import as_files
from virnucpro_pl.stages import StageClock

Level = Literal["record", "chunk", "orf"]
Sequences = str | Path | Iterable[Any] | Mapping[str, str]
_FILES: dict[Level, str] = {"record": RECORD_TABLE, "chunk": CHUNK_TABLE, "orf": ORF_TABLE}
_TEXT = ("sequence_id", "call", "status", "out_of_domain", "file", "Sequence_ID", "Prediction")
_WHOLE = ("record", "length", "chunks", "called_chunks", "viral_chunks", "orfs", "viral_orfs", "dna_only_chunks")

log = logging.getLogger(__name__)


class Predictor:
    """A model that is loaded once and predicts as often as it is asked to, on one device.

    Args:
        model: name of a configuration: ``demo``, ``virnucpro_300``, ``virnucpro_500``.
        settings: further settings as on the command line of ``predict``, such as ``model.head.weights`` or
            ``trainer.accelerator``, by name.

    Raises:
        UserError: a setting or the weights must be mended.

    Example:
        >>> predictor = Predictor("demo", {"trainer.accelerator": "cpu"})
        >>> predictor.predict({"read": "ATGGCTGCTGCTGCTGCTGCT" * 8}).column("status").to_pylist()
        ['called']
    """

    def __init__(self, model: str = "demo", settings: Mapping[str, Any] | None = None):
        self._set_up(_composed(model, settings or {}))

    @classmethod
    def of_configuration(cls, cfg: DictConfig) -> "Predictor":
        """Return the predictor of a configuration with ``model``, ``data``, ``results`` and ``trainer``.

        Raises:
            UserError: a setting or the weights must be mended.
        """
        predictor = cls.__new__(cls)
        predictor._set_up(cfg)
        return predictor

    def _set_up(self, cfg: DictConfig) -> None:
        self._cfg = cfg
        self.model: VirNucPro = instantiate(self._cfg.model)
        head = checked_head(self.model, self._cfg.data.chunk_length)
        self._rules = rules_of(instantiate(self._cfg.results), head)
        trainer = self._cfg.trainer
        logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # it gives hints that do not apply
        self._fabric = Fabric(accelerator=trainer.accelerator, devices=1)
        if trainer.precision or (self._fabric.device.type == "cuda" and not self._cfg.model.exact):
            self._fabric = Fabric(accelerator=trainer.accelerator, devices=1, precision=trainer.precision or "16-true")
        if self.model.demo:
            log.warning("Model %s: %s", self.model.name, DEMO_WARNING)
        with self._fabric.init_module():
            self.model.configure_model()
        self._scorer = self._fabric.setup_module(self.model)
        self._scorer.mark_forward_method("predict_step")
        self.model.settle()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._fabric.device

    def predict(self, sequences: Sequences, level: Level = "record") -> pa.Table:
        """Call sequences viral or not.

        Args:
            sequences: a path or several, in any format that ``predict`` reads; one sequence or several; pairs of name
                and sequence, or a mapping; records with ``id`` and ``seq``, such as Biopython's.
            level: of what the rows are: ``record`` (columns of ``sequences.tsv``), ``chunk`` (of
                ``predictions.parquet``) or ``orf`` (of ``prediction_results.txt``).

        Returns:
            a table in the order of the input; ``to_pandas()`` makes a data frame of it. ``file`` is ``-`` for sequences
            that came from no file.

        Raises:
            UserError: an input cannot be read.
        """
        if level not in get_args(Level):
            raise UserError(f"level={level!r}: choose one of {', '.join(get_args(Level))}")
        with tempfile.TemporaryDirectory(prefix="virnucpro-") as temporary:
            folder = Path(temporary)
            inputs, shown = as_files(sequences, folder)
            datamodule: FastaDataModule = instantiate(
                self._cfg.data,
                input=inputs,
                store_dir=str(folder / "store"),
                embedding_cache=None,
                encoder_inputs=self.model.inputs,
                whole_chunks=self.model.fallback_source is not None,
            )
            datamodule.prepare_data()
            datamodule.setup("predict")
            scores = self._scores(datamodule)
            results = folder / "results"
            write_results(datamodule.store.folder, shown, scores, results, self._rules, StageClock())
            return _read(results / _FILES[level], level)

    def _scores(self, datamodule: FastaDataModule) -> NDArray[np.float32]:
        """(orfs, 2) probabilities of ``others`` and ``virus``."""
        scores = np.full((datamodule.store.num_orfs, 2), np.nan, dtype=np.float32)
        with torch.inference_mode():
            for number, batch in enumerate(datamodule.predict_dataloader()):
                scored = self._scorer.predict_step(self._fabric.to_device(batch), number)
                scored.wait()
                scores[scored.orfs.numpy()] = scored.scores.numpy()
        for pairs in datamodule.duplicates.blocks() if datamodule.duplicates else ():
            scores[pairs[:, 0]] = scores[pairs[:, 1]]
        if not np.isfinite(scores).all():
            raise UserError("some scores are no numbers; give the setting trainer.precision=32-true")
        return scores


def predict(
    sequences: Sequences, model: str = "demo", *, level: Level = "record", settings: Mapping[str, Any] | None = None
) -> pa.Table:
    """Call sequences viral or not; the model is kept for the next call with the same settings.

    Args:
        sequences: a path or several, one sequence or several, pairs of name and sequence, a mapping, or records.
        model: name of a configuration: ``demo``, ``virnucpro_300``, ``virnucpro_500``.
        level: of what the rows are: ``record``, ``chunk`` or ``orf``.
        settings: further settings of ``predict``, by name, such as ``{"model.head.weights": "500_model.pth"}``.

    Returns:
        a table in the order of the input, as ``Predictor.predict`` gives it.

    Raises:
        UserError: a setting, the weights or the input must be mended.
    """
    global _kept
    key = repr((model, sorted((settings or {}).items())))
    if _kept is None or _kept[0] != key:
        _kept = None  # the memory of one is room for the next
        _kept = key, Predictor(model, settings)
    return _kept[1].predict(sequences, level)


_kept: tuple[str, Predictor] | None = None
"""The settings of the last call, and their predictor"""


def _composed(model: str, settings: Mapping[str, Any]) -> DictConfig:
    """Compose the configuration of ``predict``, as the command line would."""
    register_resolvers()
    overrides = [f"{key}={_as_override(value)}" for key, value in settings.items()]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("predict", [f"model={model}", *overrides, "paths.output_dir=.", "input=[]"])
    except (HydraException, OmegaConfBaseException) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"model={model}, settings={dict(settings)}: {first.rstrip(chr(46))}") from error
    for key in ("devices", "num_nodes"):
        if cfg.trainer[key] != 1:
            raise UserError(f"trainer.{key}={cfg.trainer[key]}: in Python it is 1; use the command line for more")
    return cfg


def _as_override(value: Any) -> str:
    """Write a value so that Hydra reads it as it is."""
    if isinstance(value, str | Path):
        quoted = str(value).replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def _read(path: Path, level: Level) -> pa.Table:
    if level == "chunk":
        return pq.read_table(to_read(path))
    with path.open("rb") as stream:
        names = stream.readline().decode().rstrip("\n").split("\t")
    types = {name: pa.string() if name in _TEXT else pa.int64() if name in _WHOLE else pa.float64() for name in names}
    options = csv.ConvertOptions(column_types=types, null_values=["NA"], strings_can_be_null=True)
    parsing = csv.ParseOptions(delimiter="\t", quote_char=False)
    return csv.read_csv(to_read(path), parse_options=parsing, convert_options=options)
