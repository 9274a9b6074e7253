"""Configuration files of users, as a source for Hydra that reads text settings literally."""

from pathlib import Path

import yaml
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from virnucpro_pl.configuration.hydra_internals import FileConfigSource
from virnucpro_pl.configuration.text_settings import encoded, is_text, literal, percent_encoded
from virnucpro_pl.errors import UserError, escaped

_SCHEME = "literal"


class LiteralFileSource(FileConfigSource):
    """Folder of YAML files in which text settings are read literally: ``output: 1_1`` is the folder ``1_1``.

    Args:
        provider: name of the source in Hydra.
        path: ``literal://`` and the percent-encoded folder.
    """

    def __init__(self, provider: str, path: str):
        super().__init__(provider, path)
        self.path = literal(self.path)

    @staticmethod
    def scheme() -> str:
        """Return the scheme of the source's paths."""
        return _SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Load a file and encode its text settings.

        Raises:
            UserError: the file is not YAML, or does not map names to values.
        """
        file = Path(self.path) / self._normalize_file_name(config_path)
        try:
            content = file.read_text(encoding="utf-8")
            tree = yaml.compose(content, yaml.SafeLoader)
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = escaped(" ".join(str(error).split()))
            raise UserError(f"{escaped(str(file))}: cannot be read as YAML: {reason}") from error
        if not isinstance(tree, yaml.MappingNode | None):
            raise UserError(f"{escaped(str(file))}: holds no settings; write one in each line, as NAME: VALUE")
        header = self._get_header_dict(content)
        if tree is not None:
            _encode(tree, _package(header["package"], config_path), set())
        config = OmegaConf.create(yaml.serialize(tree) if tree is not None else "")
        return ConfigResult(config=config, path=source_of(self.path), provider=self.provider, header=header)


def source_of(folder: str) -> str:
    """Return the entry of Hydra's search path for a folder of configuration files."""
    return f"{_SCHEME}://{percent_encoded(str(Path(folder).absolute()))}"


def _package(declared: str | None, config_path: str) -> str:
    """Return the key of the configuration under which Hydra puts the content of a file."""
    group = config_path.rpartition("/")[0].replace("/", ".")
    return group if declared is None else declared.replace("_global_", "").replace("_group_", group)


def _encode(node: yaml.Node, key: str, encoded_ids: set[int]) -> None:
    """Encode the text settings below a node in place.

    Args:
        node: the node.
        key: its key in the configuration.
        encoded_ids: ids of the nodes that are encoded already; an alias is the same node again.
    """
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            _encode(value, f"{key}.{name.value}" if key else name.value, encoded_ids)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _encode(item, key, encoded_ids)
    elif id(node) not in encoded_ids and is_text(key) and node.value != "???" and not _is_null(node):
        node.tag, node.value, node.style = "tag:yaml.org,2002:str", encoded(node.value), "'"
        encoded_ids.add(id(node))


def _is_null(node: yaml.ScalarNode) -> bool:
    return node.value in ("", "~", "null") and not node.style
