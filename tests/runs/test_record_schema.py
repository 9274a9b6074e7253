"""The published JSON Schema of ``run.json``, its check by the program, and what ``predict`` writes agree."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from support import CHECKOUT, run_here
from virnucpro_pl.errors import UserError
from virnucpro_pl.runs.record_schema import check_record, json_schema
from virnucpro_pl.runs.record_types import RunRecord

SCHEMA = CHECKOUT / "docs" / "run.schema.json"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Record of a run of the packaged sample."""
    output = tmp_path_factory.mktemp("record") / "results"
    assert run_here("predict", f"output={output}", "trainer.accelerator=cpu") == 0
    return json.loads((output / "run.json").read_text(encoding="utf-8"))


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to everything in a record, inner nodes included."""
    if path:
        yield path
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield from places(tree[key], (*path, key))


def test_the_published_schema_is_that_of_the_program() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json_schema()
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_a_run_writes_what_the_schema_says(record: dict[str, Any]) -> None:
    jsonschema.validate(record, json_schema())
    check_record(record, RunRecord)
    assert next(iter(record)) == "schema_version"
    assert record["schema_version"] == 1


def test_records_of_before_the_schema_had_a_version_are_read(record: dict[str, Any]) -> None:
    del (earlier := copy.deepcopy(record))["schema_version"]
    jsonschema.validate(earlier, json_schema())
    check_record(earlier, RunRecord)


@pytest.mark.parametrize("value", [..., None, True, -1, 1.5, "x", [], {}, [1], {"x": 1}], ids=repr)
def test_the_check_and_the_schema_refuse_the_same_records(record: dict[str, Any], value: Any) -> None:
    """Every value in turn is another, or missing."""
    validator = jsonschema.Draft202012Validator(json_schema())
    verdicts = set()
    for path in places(record):
        changed = copy.deepcopy(record)
        place = changed
        for key in path[:-1]:
            place = place[key]
        if value is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        if is_right := validator.is_valid(changed):
            check_record(changed, RunRecord)
        else:
            with pytest.raises(UserError, match=r"^run\.json: "):
                check_record(changed, RunRecord)
        verdicts.add(is_right)
    assert verdicts == {True, False}
