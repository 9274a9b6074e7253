"""Location of the configuration, its resolvers, the values in it, and objects built from it."""

import inspect
import os
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from hydra.utils import get_object
from omegaconf import OmegaConf

from virnucpro_pl.configuration.literal_files import LiteralFileSource
from virnucpro_pl.configuration.text_settings import as_typed, literal
from virnucpro_pl.errors import UserError, did_you_mean
from virnucpro_pl.host.launchers import process_name

PACKAGE = Path(__file__).parents[1]
# A wheel contains conf/ in the package; a checkout has it beside src/.
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parents[1] / "conf") if folder.is_dir())
COMMANDS = sorted(file.stem for file in CONF.glob("*.yaml"))


def register_resolvers() -> None:
    """Register the resolvers and the config source that configurations and translated command lines need."""
    Plugins.instance().register(LiteralFileSource)
    OmegaConf.register_new_resolver("literal", literal, replace=True)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
    OmegaConf.register_new_resolver("packaged", lambda name: str(PACKAGE / "demo" / name), replace=True)


def build(node: Any, **arguments: Any) -> Any:
    """Call the ``_target_`` of a part of the configuration with its other keys as arguments.

    Nested targets are called first; ``_partial_`` gives a ``functools.partial``. Replaces ``hydra.utils.instantiate``,
    which resolves interpolations twice: a file named ``${oc.env:HOME}`` would become the home folder.

    Args:
        node: the part, or plain objects.
        arguments: further arguments, which override those of the node.

    Raises:
        UserError: an argument is unknown to the target, or missing.
    """
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    if isinstance(node, list):
        return [build(item) for item in node]
    if not isinstance(node, dict):
        return node
    values = {key: build(value) for key, value in node.items() if key not in arguments} | arguments
    name, is_partial = values.pop("_target_", None), values.pop("_partial_", False)
    if name is None:
        return values
    target = get_object(name)
    _check_arguments(target, values, is_partial)
    return partial(target, **values) if is_partial else target(**values)


def _check_arguments(target: Any, values: dict[str, Any], is_partial: bool) -> None:
    try:
        signature = inspect.signature(target)
    except ValueError:  # some built-in classes have none
        return
    try:
        (signature.bind_partial if is_partial else signature.bind)(**values)
    except TypeError as error:
        wrong = next((name for name in values if name not in signature.parameters), "")
        near = did_you_mean(wrong, signature.parameters)
        owner, _, _ = target.__qualname__.partition(".")  # of a class method
        raise UserError(f"configuration of {owner}: {error}{near}") from error


def value_of(cfg: Any, key: str) -> Any:
    """Return the value of a setting, with lists as ``list``, or None if there is no such key.

    ``OmegaConf.select`` would treat a file named ``???`` as a missing value.
    """
    for name in key.split("."):
        cfg = cfg.get(name) if OmegaConf.is_dict(cfg) else None
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_list(cfg) else cfg


def typed_settings() -> list[str]:
    """Return the settings of this run as typed; flags are given as the settings that they stand for."""
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task)  # without resolving them
    return [as_typed(str(override)) for override in overrides or ()]


def command() -> list[str]:
    """Return the command line of this run as typed, for the run record."""
    return ["virnucpro-pl", str(HydraConfig.get().job.config_name), *typed_settings()]


def _run_folder(output: str | None, default: str) -> str:
    """Return the folder of a run or sweep; for ``output=-`` it is the default one."""
    return default if output in ("-", None) else output


def job_folder(output: str | None, default: str) -> str:
    """Return the folder of a job: that of the run, or a numbered folder below that of the sweep."""
    folder = _run_folder(output, default)
    if HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN:
        return os.path.join(folder, str(HydraConfig.get().job.num))  # noqa: PTH118 - keeps the name as typed
    return folder


def process_of(job: str, cfg: Any) -> str:
    """Return the label of a further process of a run (``rank1``, ``node1``, ``node1.rank1``), empty for the first.

    ``job`` is the name of Hydra's job.
    """
    plugins = OmegaConf.select(cfg, "trainer.plugins")
    if plugins is None:  # a command without trainer has one process
        return ""
    try:
        return process_name(job, plugins.devices, plugins.num_nodes, plugins.slurm)
    except (AttributeError, TypeError, ValueError):  # wrong settings, which are refused later
        return ""
