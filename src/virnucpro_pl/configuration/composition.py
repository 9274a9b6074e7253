"""Composition of a configuration from Python, also within another Hydra application."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase
from omegaconf import DictConfig

from virnucpro_pl.configuration.hydra_config import CONF, register_resolvers


def composed(command: str, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration of a command, as on the command line.

    Not thread-safe, because Hydra composes through global state.

    Raises:
        HydraException: a setting is unknown or has a wrong value.
        OmegaConfBaseException: likewise.
    """
    register_resolvers()
    with _restored_hydra(), initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, [*overrides])


@contextmanager
def _restored_hydra() -> Iterator[None]:
    """Restore Hydra's global state at the end, as another application may have set it."""
    state, version = GlobalHydra.instance(), VersionBase.instance()
    hydra, version_base = state.hydra, version.version_base
    state.clear()
    try:
        yield
    finally:
        state.hydra, version.version_base = hydra, version_base
        GlobalHydra.set_instance(state)
