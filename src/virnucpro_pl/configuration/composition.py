"""Composing a configuration from Python, also within another Hydra application."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase
from omegaconf import DictConfig

from virnucpro_pl.configuration.hydra_config import CONF, register_resolvers


def composed(command: str, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration of a command, as the command line would have it.

    One thread at a time may call it: Hydra composes by way of global state.

    Args:
        command: its name.
        overrides: as Hydra takes them.

    Raises:
        HydraException: a setting is unknown or has a wrong value.
        OmegaConfBaseException: likewise.
    """
    register_resolvers()
    with _state_of_others_kept(), initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, [*overrides])


@contextmanager
def _state_of_others_kept() -> Iterator[None]:
    """Give back Hydra's global state as it was; another application may have set it."""
    state, version = GlobalHydra.instance(), VersionBase.instance()
    hydra, version_base = state.hydra, version.version_base
    state.clear()
    try:
        yield
    finally:
        state.hydra, version.version_base = hydra, version_base
        GlobalHydra.set_instance(state)
