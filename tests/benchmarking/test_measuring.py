"""What is timed is the work that is counted."""

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from virnucpro_pl.benchmarking import rates
from virnucpro_pl.benchmarking.measurement import ENCODER, PREDICT, Measurement, rows, write_csv
from virnucpro_pl.benchmarking.rates import matrix_flops_per_token, matrix_rate, median_seconds, sustained_seconds
from virnucpro_pl.benchmarking.suite import Settings, encoder_speed, evenly
from virnucpro_pl.data.packed import pack
from virnucpro_pl.errors import UserError
from virnucpro_pl.models.encoders.numerics import Numerics

CPU = torch.device("cpu")
SETTINGS = Settings(
    reads=3,
    read_lengths=[60],
    encoder_batches=1,
    repeats=1,
    matrix_seconds=0.1,
    seed=0,
)


def test_matrix_products_are_those_of_every_linear_layer(esm2, dnabert_s, monkeypatch) -> None:
    for encoder in (esm2, dnabert_s):
        counted = []

        def count(step, device, at_least, counted=counted) -> float:
            with FlopCounterMode(display=False) as counter:
                step()
            counted.append(counter.get_total_flops())
            return 0.5

        monkeypatch.setattr(rates, "sustained_seconds", count)
        rate = matrix_rate(encoder, num_tokens=100, at_least_seconds=0.1)
        assert counted == [100 * matrix_flops_per_token(encoder.config)]
        assert rate == counted[0] / 0.5


def test_matrix_rate_of_float8_layers_is_measured_too(esm2) -> None:
    Numerics(fp8=True).apply(esm2)
    assert matrix_rate(esm2, num_tokens=32, at_least_seconds=0.001) > 0


def test_encoder_counts_real_tokens_and_their_operations(esm2) -> None:
    batches = [pack([torch.randint(4, 24, (length,)).numpy() for length in lengths]) for lengths in ((9, 9, 4), (3,))]
    found = encoder_speed("ESM-2", esm2, batches, seconds=2.0, rate=1e9)
    assert (found.tokens, found.sequences, found.packing_efficiency) == (25, 4, 1.0)
    esm2.attention = "exact"  # as plain matrix products, which the counter knows
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        for batch in batches:
            esm2(batch)
    assert found.flops == counter.get_total_flops()
    assert found.matrix_seconds == pytest.approx(found.flops / 1e9)


def test_every_step_is_done_in_every_pass() -> None:
    done: list[str] = []
    steps = [partial(done.append, name) for name in "abc"]
    assert median_seconds(steps, CPU, repeats=2) > 0
    assert "".join(done) == "ac" + "abc" * 2, "two to warm up"


def test_sustained_work_goes_on_for_the_time_asked_for() -> None:
    calls = []
    each = sustained_seconds(lambda: calls.append(sum(range(10_000))), CPU, at_least=0.05)
    assert each > 0
    assert len(calls) > 5


@given(total=st.integers(0, 1000), wanted=st.integers(0, 1000))
def test_samples_are_distinct_ascending_and_within(total: int, wanted: int) -> None:
    sample = evenly(total, wanted).tolist()
    assert len(sample) == min(total, wanted)
    assert sorted(set(sample)) == sample
    assert all(0 <= number < total for number in sample)


def measurement(**changes) -> Measurement:
    given = {
        **{"part": ENCODER, "encoder": "ESM-2", "precision": "16-true", "mix": "150 nt"},
        **{"sequences": 10, "tokens": 1000, "seconds": 2.0, "flops": 8e12, "matrix_seconds": 1.0},
    }
    return Measurement(**{**given, **changes})


def test_speeds_follow_from_what_was_measured(tmp_path: Path) -> None:
    ours = measurement()
    found = [
        measurement(encoder="DNABERT-S", sequences=40, tokens=3000),
        ours,
        measurement(precision="bf16-true", tokens=9000),
        measurement(mix="500 nt", tokens=7000),
        measurement(part=PREDICT, encoder="both", sequences=36, seconds=9.0),
    ]
    write_csv(found, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [set(row) for row in table] == [set(rows(found)[0])] * len(found)
    first, whole = table[1], table[4]
    assert float(first["tokens_per_second"]) == 500
    assert float(first["sequences_per_second"]) == 5
    assert float(first["tflops"]) == 4
    assert float(first["share_of_matrix_rate"]) == 0.5
    assert float(first["tokens_per_second_limit"]) == 1000
    assert first["gpu_utilisation_percent"] == ""
    assert float(whole["share_of_slower_encoder"]) == 0.8
    assert first["share_of_slower_encoder"] == ""
    assert rows([replace(ours, sequences=None)])[0]["sequences_per_second"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"reads": 0},
        {"reads": "many"},
        {"read_lengths": []},
        {"read_lengths": [150, 2]},
        {"repeats": 0},
        {"encoder_batches": 0},
        {"repeats": 1.5},
        {"matrix_seconds": 0},
        {"matrix_seconds": None},
        {"seed": -1},
    ],
)
def test_settings_that_measure_nothing_are_refused_by_name(changes: dict) -> None:
    SETTINGS.check()
    with pytest.raises(UserError, match=next(iter(changes))):
        SETTINGS._replace(**changes).check()
