"""Every shipped YAML builds, and every key changes something or is refused."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from support import CHECKOUT
from virnucpro_pl.configuration.hydra_config import COMMANDS, build, register_resolvers
from virnucpro_pl.configuration.hydra_config import CONF as PROGRAM_CONF

CONF = CHECKOUT / "conf"
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _resolvers() -> None:
    register_resolvers()


def composed(*overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("predict", [*overrides, "paths.output_dir=out", "trainer.accelerator=cpu"])


@pytest.mark.parametrize("model", MODELS)
def test_model_builds(model: str) -> None:
    """Weights are not read yet."""
    cfg = composed(f"model={model}")
    assert build(cfg.model).name == model
    assert cfg.data.chunk_length == cfg.model.head.chunk_length


@pytest.mark.parametrize("group", ["data", "trainer", "results", "formats"])
def test_group_builds(group: str) -> None:
    assert build(composed()[group])


def test_callbacks_build() -> None:
    assert len(list(map(build, composed().callbacks.values()))) == 7


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_composes(experiment: str) -> None:
    assert composed(f"experiment={experiment}")


def test_experiment_wins_over_the_commands_own_settings(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\noverwrite: true\ndata: {chunking: even}\n")
    cfg = composed(f"hydra.searchpath=['file://{tmp_path}']", "experiment=mine")
    assert (cfg.overwrite, cfg.data.chunking) == (True, "even")


def test_misspelt_key_in_yaml_is_refused() -> None:
    cfg = composed()
    OmegaConf.set_struct(cfg, False)
    cfg.data.chunk_lenght = 3
    with pytest.raises(Exception, match="chunk_lenght"):
        build(cfg.data)


def test_conf_is_where_the_program_looks() -> None:
    """The wheel carries a copy of ``conf/``, a checkout is run with ``conf/`` itself."""
    own = {str(path.relative_to(CONF)): path.read_bytes() for path in CONF.rglob("*.yaml")}
    found = {str(path.relative_to(PROGRAM_CONF)): path.read_bytes() for path in Path(PROGRAM_CONF).rglob("*.yaml")}
    assert found == own
    assert sorted(path.stem for path in CONF.glob("*.yaml")) == COMMANDS
