"""Settings whose value is text (paths, names, free words): they reach the program exactly as the user typed them.

Hydra reads ``1_1`` as a number, ``${oc.env:HOME}`` as an interpolation and ``a,b`` as a sweep. Which settings are text
is decided by their key, never by their value. The value is percent-encoded into an interpolation of our own resolver,
``${literal:"…"}``, which neither Hydra's grammar nor YAML reads as anything else.
"""

import logging
import os
import re
from collections.abc import Sequence
from urllib.parse import quote, unquote_to_bytes

from virnucpro_pl.errors import escaped

_WHOLE_KEYS = {
    *("input", "output", "reference", "candidate", "embeddings", "folder", "tokenizer", "source", "records", "split"),
    *("data.input", "model.name", "model.fallback_head", "split.by"),
    *("paths.default_output", "paths.output_dir", "paths.work_dir"),
}
_LAST_PARTS = {"weights", "revision", "folder", "dirpath", "filename", "save_dir", "store_dir", "embedding_cache"}
"""Keys that end so are text wherever they stand"""
_LIST_KEYS = {"input", "embeddings", "records"}
_FILE_LISTS = re.compile(r"model\.\w+\.files")
_NAME_IN_LOGGER = re.compile(r"logger\.\w+\.(name|version)")
_ENCODED = re.compile(r"\$\{literal:\"([^\"]*)\"\}")
_QUOTED = re.compile(rf"'{_ENCODED.pattern}'")
_ENCODED_SETTING = re.compile(r"(?P<key>[^=]+)=(?P<value>'\$\{literal:.*\}'|\[('\$\{literal:.*\}')?\])")
_ITEM = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,]*?)\s*,""", re.DOTALL)


def is_text(key: str) -> bool:
    """Return whether the value of a setting is text, or a list of texts."""
    return (
        key in _WHOLE_KEYS
        or key.rpartition(".")[2] in _LAST_PARTS
        or takes_list(key)
        or _NAME_IN_LOGGER.fullmatch(key) is not None
    )


def takes_list(key: str) -> bool:
    """Return whether a text setting takes several texts as well, as ``[a,b]``."""
    return key in _LIST_KEYS or _FILE_LISTS.fullmatch(key) is not None


def encoded(text: str) -> str:
    r"""Write text as an interpolation that resolves to it; undecodable bytes of file names stay what they are.

    >>> encoded("1_1")
    '${literal:"1_1"}'
    >>> decoded(encoded("${oc.env:HOME} it's\n")) == "${oc.env:HOME} it's\n"
    True
    """
    return f'${{literal:"{percent_encoded(text)}"}}'


def percent_encoded(text: str) -> str:
    """Write text in letters, digits and ``%/._-``."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="/._-")


def decoded(interpolation: str) -> str:
    """Return the text that ``encoded`` has written."""
    match = _ENCODED.fullmatch(interpolation)
    if match is None:
        raise ValueError(f"{interpolation!r} is not an encoded text")
    return literal(match[1])


def literal(encoded_text: str) -> str:
    """Resolve ``${literal:"…"}``."""
    return unquote_to_bytes(encoded_text).decode("utf-8", "surrogatepass")


def setting(key: str, value: str) -> str:
    """Write ``key=value`` of a text setting as an override of Hydra; ``[a,b]`` is a list where the key takes one.

    An empty value is null, unless the setting cannot be without a value, which its command checks.
    """
    if not value:
        return f"{key}=null"
    if takes_list(key.lstrip("+")) and _is_list(value):
        return listed(key, split_list(value))
    return single(key, value)


def single(key: str, value: str) -> str:
    """Write one text as an override of Hydra, whatever it looks like."""
    return f"{key}='{encoded(value)}'"


def listed(key: str, values: Sequence[str]) -> str:
    """Write several texts as an override of Hydra."""
    quoted = (f"'{encoded(value)}'" for value in values)
    return f"{key}=[{','.join(quoted)}]"


def _is_list(value: str) -> bool:
    """Return whether a value is written as a list; a file of just this name is that file."""
    return value.startswith("[") and value.endswith("]") and not os.path.lexists(value)


def split_list(value: str) -> list[str]:
    """Split ``[a,b]`` at its commas; blanks around an item go, an item in quotes keeps commas and blanks.

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


def shown(override: str) -> str:
    """Write an override of Hydra as the user would type it."""
    match = _ENCODED_SETTING.fullmatch(override)
    if match is None:
        return override
    values = [literal(found) for found in _ENCODED.findall(match["value"])]
    if match["value"].startswith("["):
        return f"{match['key']}=[{','.join(map(_list_item, values))}]"
    return f"{match['key']}={values[0]}"


def _list_item(text: str) -> str:
    if re.fullmatch(r"[^\s,'\"\\\[\]][^,]*(?<!\s)", text):
        return text
    escaped = re.sub(r"([\\'])", r"\\\1", text)
    return f"'{escaped}'"


class ShownAsTyped(logging.Filter):
    """A filter of log records that shows encoded texts as the user typed them; Hydra logs the overrides of its jobs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Decode the texts in a record; keep all records."""
        record.msg = _QUOTED.sub(lambda found: escaped(literal(found[1])), str(record.msg))
        return True
