"""The classical classifier that heads are compared with (benchmarks/kmer_baseline.py)."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from Bio.Seq import reverse_complement
from hypothesis import given, settings
from hypothesis import strategies as st

from support import CHECKOUT
from virnucpro_pl.training.labelled_store import LabelledStore
from virnucpro_pl.training.splits import SplitSettings, split_records


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: make test-optional")
    sys.path.insert(0, str(CHECKOUT / "benchmarks"))
    try:
        import kmer_baseline

        yield kmer_baseline
    finally:
        sys.path.remove(str(CHECKOUT / "benchmarks"))


@settings(max_examples=40, deadline=None)
@given(text=st.text("ACGTNacgt", max_size=40), k=st.integers(1, 4))
def test_kmers_are_counted_as_by_hand_and_alike_on_both_strands(script: ModuleType, text: str, k: int) -> None:
    columns = script.canonical_columns(k)
    forward, backward = script.frequencies([text.encode(), reverse_complement(text.upper()).encode()], k, columns)
    np.testing.assert_allclose(forward, backward)
    words = [text[start : start + k].upper() for start in range(len(text) - k + 1)]
    by_hand = Counter(min(word, reverse_complement(word)) for word in words if "N" not in word)
    counted = sorted(share for share in forward.tolist() if share)
    assert counted == pytest.approx(sorted(count / by_hand.total() for count in by_hand.values()))


@pytest.fixture
def split(dataset: Path, tmp_path: Path) -> Path:
    split_records(LabelledStore(dataset), SplitSettings(), 42).save(tmp_path, 42)
    return tmp_path / "split.json"


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["kmer_baseline.py", *map(str, arguments)])
    script.main()


def test_the_baseline_is_compared_with_a_head_and_with_guessing(script, dataset, split, monkeypatch, capsys) -> None:
    against = split.with_name("metrics.json")
    against.write_text(json.dumps({"overall": {"auroc": 0.25}, "by_length": {}}))
    run(script, monkeypatch, dataset, split, "--k", 3, "--resamples", 50, "--against", against)
    rows = {row.split()[0]: row.split() for row in capsys.readouterr().out.splitlines()[2:]}
    auroc = float(rows["all"][2])
    assert auroc > 0.75  # the classes differ in composition
    assert float(rows["all"][3].strip("(")) <= auroc <= float(rows["all"][5].strip(")"))
    assert float(rows["all"][-1]) == pytest.approx(0.25 - auroc, abs=1e-3)
    assert rows["guessing"][2] == "0.500"


def test_without_intervals_and_with_nothing_to_test_it_still_says_so(
    script, dataset, split, monkeypatch, capsys
) -> None:
    run(script, monkeypatch, dataset, split, "--resamples", 0)
    assert "(no interval)" in capsys.readouterr().out
    content = json.loads(split.read_text())
    groups = content["groups"]
    content["groups"] = {"train": [*groups["train"], *groups["test"]], "validation": groups["validation"], "test": []}
    split.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="no fragment of these datasets is in its test part"):
        run(script, monkeypatch, dataset, split)
    content["groups"]["test"] = [name for name in groups["test"] if name.startswith("virus")]
    content["groups"]["train"] = [name for name in content["groups"]["train"] if name not in content["groups"]["test"]]
    split.write_text(json.dumps(content))
    run(script, monkeypatch, dataset, split)
    assert "NA (one class only)" in capsys.readouterr().out
