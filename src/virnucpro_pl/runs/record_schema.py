"""Check of run records against their types, and the JSON Schema of ``run.json``.

``python -m virnucpro_pl.runs.record_schema`` prints the schema, which ``docs/run.schema.json`` publishes.
"""

import json
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints, is_typeddict

from virnucpro_pl.errors import UserError, escaped
from virnucpro_pl.files.output_files import RUN_FILE
from virnucpro_pl.runs.record_types import RunRecord

_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}
_JSON_NAMES = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}


def check_record(record: Mapping[str, Any], kind: type) -> None:
    """Check a record against a ``TypedDict``; further keys are allowed.

    Raises:
        UserError: a key is missing, or has another type; whole numbers must not be negative.
    """
    _check(record, kind, "")


def _check(value: Any, kind: Any, where: str) -> None:
    kinds = get_args(kind) if get_origin(kind) is UnionType or isinstance(kind, UnionType) else (kind,)
    matching = next((one for one in kinds if _is_of(value, one)), None)
    if matching is None and kinds != (Any,):
        names = [_NAMES[_plain(one)] for one in kinds if one is not NoneType]
        expected = " or ".join([*dict.fromkeys(names[-1:]), *(["null"] if NoneType in kinds else [])])
        raise UserError(f"{RUN_FILE}: {where} is {escaped(repr(value))[:60]}, not {expected}")
    if is_typeddict(matching):
        for key, inner in _hints(matching).items():
            name = f"{where}.{key}" if where else key
            if key in value:
                _check(value[key], inner, name)
            elif key in cast("Any", matching).__required_keys__:
                raise UserError(f"{RUN_FILE}: {name} is missing")
    elif get_origin(matching) is list:
        for number, item in enumerate(value):
            _check(item, get_args(matching)[0], f"{where}[{number}]")
    elif get_origin(matching) is dict:
        for key, item in value.items():
            _check(item, get_args(matching)[1], f"{where}.{escaped(str(key))}" if where else str(key))


def _is_of(value: Any, kind: Any) -> bool:
    plain = _plain(kind)
    if isinstance(value, bool) or plain is bool:
        return isinstance(value, bool) and plain is bool
    if plain is int:
        return isinstance(value, int) and value >= 0
    return isinstance(value, int | float if plain is float else plain)


def _plain(kind: Any) -> Any:
    return object if kind is Any else dict if is_typeddict(kind) else get_origin(kind) or kind


def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a ``TypedDict`` without ``NotRequired``."""
    return get_type_hints(kind)


def json_schema(kind: Any = RunRecord) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": RUN_FILE, **_schema_of(kind)}


def _schema_of(kind: Any) -> dict[str, Any]:
    if kind is Any:
        return {}
    if isinstance(kind, UnionType):
        return {"anyOf": [_schema_of(one) for one in get_args(kind)]}
    if is_typeddict(kind):
        properties = {key: _schema_of(inner) for key, inner in _hints(kind).items()}
        required = sorted(kind.__required_keys__)
        return {"type": "object", "description": kind.__doc__, "properties": properties, "required": required}
    if get_origin(kind) is list:
        return {"type": "array", "items": _schema_of(get_args(kind)[0])}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _schema_of(get_args(kind)[1])}
    return {"type": _JSON_NAMES[kind], **({"minimum": 0} if kind is int else {})}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
