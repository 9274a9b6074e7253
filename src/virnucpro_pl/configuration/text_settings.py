"""Text settings (paths, names, free words), which reach the program exactly as typed.

Hydra reads ``1_1`` as a number, ``${oc.env:HOME}`` as an interpolation and ``a,b`` as a sweep. The key of a setting,
never its value, decides that it is text. Its value is percent-encoded into an interpolation, ``${literal:"…"}``, in
which Hydra's grammar and YAML find nothing to interpret.
"""

import logging
import os
import re
from collections.abc import Sequence
from urllib.parse import quote, unquote_to_bytes

from virnucpro_pl.errors import escaped

_KEYS = {
    *("input", "output", "reference", "candidate", "embeddings", "folder", "tokenizer", "source", "records", "split"),
    *("data.input", "model.name", "model.fallback_head", "split.by"),
    *("paths.default_output", "paths.output_dir", "paths.work_dir"),
}
_LAST_PARTS = {"weights", "revision", "folder", "dirpath", "filename", "save_dir", "store_dir", "embedding_cache"}
"""Last parts of further keys of text settings"""
_LIST_KEYS = {"input", "embeddings", "records"}
_FILE_LISTS = re.compile(r"model\.\w+\.files")
_NAME_IN_LOGGER = re.compile(r"logger\.\w+\.(name|version)")
_QUOTED = re.compile(r"'\$\{literal:\"([^\"]*)\"\}'")
_TEXT_OVERRIDE = re.compile(rf"(?P<key>[^=]+)=(?P<value>{_QUOTED.pattern}|\[({_QUOTED.pattern},?)*\])")
_ITEM = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,]*?)\s*,""", re.DOTALL)


def is_text(key: str) -> bool:
    """Return whether the value of a setting is text, or a list of texts."""
    return (
        key in _KEYS
        or key.rpartition(".")[2] in _LAST_PARTS
        or takes_list(key)
        or _NAME_IN_LOGGER.fullmatch(key) is not None
    )


def takes_list(key: str) -> bool:
    """Return whether a text setting also takes a list, as ``[a,b]``."""
    return key in _LIST_KEYS or _FILE_LISTS.fullmatch(key) is not None


def encoded(text: str) -> str:
    r"""Return an interpolation that resolves to the text; undecodable bytes of file names are kept.

    >>> encoded("1_1")
    '${literal:"1_1"}'
    """
    return f'${{literal:"{percent_encoded(text)}"}}'


def percent_encoded(text: str) -> str:
    """Encode text as letters, digits and ``%/._-``."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="/._-")


def literal(encoded_text: str) -> str:
    """Decode percent-encoded text; the resolver of ``${literal:"…"}``."""
    return unquote_to_bytes(encoded_text).decode("utf-8", "surrogatepass")


def typed_override(key: str, value: str) -> str:
    """Return Hydra's override for a text setting typed as ``key=value``.

    ``[a,b]`` is a list if the setting takes one, unless a file has this name. An empty value is null.
    """
    if not value:
        return f"{key}=null"
    is_list = value.startswith("[") and value.endswith("]") and not os.path.lexists(value)
    if is_list and takes_list(key.lstrip("+")):
        return list_override(key, split_list(value))
    return text_override(key, value)


def text_override(key: str, value: str) -> str:
    """Return Hydra's override that sets a key to one text."""
    return f"{key}='{encoded(value)}'"


def list_override(key: str, values: Sequence[str]) -> str:
    """Return Hydra's override that sets a key to a list of texts."""
    quoted = (f"'{encoded(value)}'" for value in values)
    return f"{key}=[{','.join(quoted)}]"


def split_list(value: str) -> list[str]:
    """Split ``[a,b]`` at its commas and strip blanks; items in quotes keep commas and blanks.

    >>> split_list("[a(1).fa, 1_1, 'b,c.fa']")
    ['a(1).fa', '1_1', 'b,c.fa']
    """
    inner = value[1:-1].strip()
    if inner and not inner.endswith(","):
        inner += ","
    return [_unquoted(item) for item in _ITEM.findall(inner)]


def _unquoted(item: str) -> str:
    if len(item) >= 2 and item[0] == item[-1] and item[0] in "'\"":
        return re.sub(r"\\([\\'\"])", r"\1", item[1:-1])
    return item


def as_typed(override: str) -> str:
    """Return an override of Hydra as the user would type it."""
    match = _TEXT_OVERRIDE.fullmatch(override)
    if match is None:
        return override
    texts = [literal(found) for found in _QUOTED.findall(match["value"])]
    value = f"[{','.join(map(_list_item, texts))}]" if match["value"].startswith("[") else texts[0]
    return f"{match['key']}={value}"


def _list_item(text: str) -> str:
    if re.fullmatch(r"[^\s,'\"\\\[\]][^,]*(?<!\s)", text):
        return text
    quotable = re.sub(r"([\\'])", r"\\\1", text)
    return f"'{quotable}'"


def written(value: object) -> str:
    """Return a value in the notation of the command line.

    >>> written(None), written(True), written([1, 2])
    ('null', 'true', '[1, 2]')
    """
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


class ShownAsTyped(logging.Filter):
    """Log filter that decodes texts in the overrides that Hydra logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Decode the texts in a record and keep it."""
        record.msg = _QUOTED.sub(lambda found: escaped(literal(found[1])), str(record.msg))
        return True
