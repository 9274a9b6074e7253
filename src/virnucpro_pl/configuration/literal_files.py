"""The user's own configuration files as a source for Hydra; this uses a private class of Hydra 1.3."""

from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from virnucpro_pl.configuration.text_settings import encoded, is_text, literal, percent_encoded
from virnucpro_pl.errors import UserError, escaped

_SCHEME = "literal"


class LiteralFileSource(FileConfigSource):
    """A folder of YAML files in which the values of text settings are taken as they are written.

    ``output: 1_1`` is the folder ``1_1`` there, as on the command line.

    Args:
        provider: what Hydra calls it.
        path: ``literal://`` and the percent-encoded folder.
    """

    def __init__(self, provider: str, path: str):
        super().__init__(provider, path)
        self.path = literal(self.path)

    @staticmethod
    def scheme() -> str:
        """Return the scheme of its paths."""
        return _SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Load a file and encode its texts.

        Raises:
            UserError: the file is not YAML, or no mapping of names to values.
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
    """Write a folder of configuration files as an entry of Hydra's search path."""
    return f"{_SCHEME}://{percent_encoded(str(Path(folder).absolute()))}"


def _package(declared: str | None, config_path: str) -> str:
    """Return the key below which the content of a file will stand."""
    group = config_path.rpartition("/")[0].replace("/", ".")
    return group if declared is None else declared.replace("_global_", "").replace("_group_", group)


def _encode(node: yaml.Node, key: str, seen: set[int]) -> None:
    """Encode the text settings below a node, in place; ``seen`` are the nodes done, which an alias shows again."""
    if id(node) in seen and isinstance(node, yaml.ScalarNode):
        return
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            _encode(value, f"{key}.{name.value}" if key else name.value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _encode(item, key, seen)
    elif is_text(key) and node.value != "???" and not (node.value in ("", "~", "null") and not node.style):
        node.tag, node.value, node.style = "tag:yaml.org,2002:str", encoded(node.value), "'"
        seen.add(id(node))
