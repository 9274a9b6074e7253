"""The closing figures: one definition each, bounded, and printed from run.json alone."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2, STAGES
from virnucpro_pl.results.summary import DEMO_WARNING, found_line, merge_metrics, summary_lines

SECONDS = st.floats(0, 1e5, allow_subnormal=False).map(lambda x: round(x, 6))


def rank(**changes) -> dict:
    return {
        "batches": 10,
        "orfs": 400,
        "dna_sequences": 390,
        "dna_cached": 10,
        "dna_tokens": 5000,
        "dna_processed": 5000,
        "protein_sequences": 300,
        "protein_cached": 20,
        "protein_tokens": 8000,
        "protein_processed": 8000,
        "seconds": 4.0,
        "wait_seconds": 0.5,
        "max_wait_seconds": 0.25,
        "peak_memory_bytes": 300 * 2**20,
        "device": "cpu",
    } | changes


def stages(**changes: float) -> dict[str, float]:
    return {**dict.fromkeys(STAGES, 0.0), **changes}


@st.composite
def ranks(draw):
    real_dna, real_protein = draw(st.integers(0, 10**9)), draw(st.integers(0, 10**9))
    return rank(
        batches=draw(st.integers(0, 10**5)),
        dna_tokens=real_dna,
        dna_processed=real_dna + draw(st.integers(0, 10**9)),
        protein_tokens=real_protein,
        protein_processed=real_protein + draw(st.integers(0, 10**9)),
    )


@given(st.lists(st.tuples(st.fixed_dictionaries(dict.fromkeys(STAGES, SECONDS)), ranks()), min_size=1, max_size=3))
def test_shares_of_the_stages_add_up_and_no_efficiency_passes_one(measured):
    figures = merge_metrics([one for one, _ in measured], [two for _, two in measured], 16384, {})
    shares = [stage["share"] for stage in figures["stages"].values()]

    assert list(figures["stages"]) == list(STAGES)
    assert sum(shares) == pytest.approx(1, abs=len(STAGES) * 5e-5) or not any(shares)
    efficiencies = [figures["packing_efficiency"], figures["budget_fill"], figures["wait_share"]]
    efficiencies += [encoder["packing_efficiency"] for encoder in figures["encoders"].values()]
    assert all(0 <= efficiency <= 1 for efficiency in efficiencies)
    json.dumps(figures, allow_nan=False)


def test_packing_efficiency_is_that_of_all_tokens_not_a_mean_of_ranks():
    figures = merge_metrics(
        [stages(), stages()],
        [rank(protein_tokens=100, protein_processed=100), rank(protein_tokens=100, protein_processed=300)],
        1000,
        {},
    )

    assert figures["encoders"][ESM2]["packing_efficiency"] == 0.5
    assert figures["encoders"][DNABERT_S]["packing_efficiency"] == 1
    assert figures["packing_efficiency"] == round(10200 / 10400, 4)


def test_ranks_are_added_where_they_share_the_work_and_the_slowest_counts_where_they_work_side_by_side():
    figures = merge_metrics(
        [stages(**{ESM2: 2.0}), stages(**{ESM2: 4.0})],
        [rank(seconds=5.0), rank(seconds=3.0, max_wait_seconds=0.75, peak_memory_bytes=900 * 2**20, batches=30)],
        400,
        stages(Consensus=1.0),
    )

    assert figures["stages"][ESM2] == {"seconds": 4.0, "share": 0.8}
    assert figures["stages"]["Consensus"] == {"seconds": 1.0, "share": 0.2}
    assert (figures["batches"], figures["embedded_orfs"], figures["predict_seconds"]) == (40, 800, 5.0)
    assert figures["encoders"][ESM2]["tokens"] == 16000
    assert [figures["encoders"][ESM2][unit] for unit in ("sequences", "cached")] == [600, 40]
    assert [figures["encoders"][DNABERT_S][unit] for unit in ("sequences", "cached")] == [780, 20]
    assert figures["encoders"][ESM2]["tokens_per_second"] == 8000 / 2 + 8000 / 4
    assert figures["encoders"][ESM2]["sequences_per_second"] == 300 / 2 + 300 / 4
    assert figures["budget_fill"] == 1.0  # 16,000 tokens over 40 batches of 400
    assert (figures["wait_mean_ms"], figures["wait_max_ms"]) == (25.0, 750.0)
    assert figures["wait_share"] == 0.125
    assert figures["peak_memory_bytes"] == 900 * 2**20
    assert figures["devices"] == ["cpu", "cpu"]


def test_budget_fill_is_the_mean_over_batches():
    assert merge_metrics([stages()], [rank()], 1600, {})["budget_fill"] == 0.5


def test_a_run_without_batches_has_figures():
    empty = rank(**{key: 0 for key, value in rank().items() if isinstance(value, (int, float))})
    figures = merge_metrics([stages()], [empty], 16384, {})

    assert figures["encoders"][ESM2]["tokens_per_second"] == 0
    assert figures["wait_mean_ms"] == 0
    assert figures["wait_share"] == 0, "nothing waited"
    json.dumps(figures, allow_nan=False)


def test_gpu_figures_are_there_only_with_a_gpu():
    on_cpu = merge_metrics([stages()], [rank()], 16384, {})
    on_gpu = merge_metrics(
        [stages(), stages(), stages()],
        [
            rank(device="cuda:0", gpu_name="H200", gpu_utilisation=90.0, gpu_peak_memory_bytes=6 * 2**30),
            rank(device="cuda:1", gpu_name="H200", gpu_utilisation=70.0, gpu_peak_memory_bytes=7 * 2**30),
            rank(device="cuda:2", gpu_name="H200", gpu_utilisation=None, gpu_peak_memory_bytes=5 * 2**30),
        ],
        16384,
        {},
    )

    assert on_cpu["gpu_utilisation_percent"] is on_cpu["gpu_peak_memory_bytes"] is None
    assert on_gpu["gpu_utilisation_percent"] == 80.0
    assert on_gpu["gpu_peak_memory_bytes"] == 7 * 2**30
    assert on_gpu["devices"] == ["H200"] * 3


@pytest.fixture
def run() -> dict:
    """As run.json has it: every number is different, so that a line cannot show another's."""
    return {
        "model": {"name": "virnucpro_300", "demo": False},
        "embedding_cache": None,
        "counts": {
            "records": 1201,
            "bases": 345678,
            "chunks": 2302,
            "orfs": 3403,
            "unique_orfs": 3304,
            "saved": {"orfs": 99, "proteins": 17},
            "duplicate_names": 0,
            "duplicate_suffix": "_dup",
            "formula_names": 0,
            "inputs": [
                {"records": 701, "mates": "1"},
                {"records": 701, "mates": "2"},
                {"records": 500, "mates": "interleaved"},
                {"records": 0, "mates": None, "skipped": {"secondary": 31, "supplementary": 17}},
                {"records": 0, "mates": None, "skipped": {"secondary": 1, "supplementary": 0}},
            ],
            "record_status": {"called": 1150, "no_orf": 40, "ambiguous_only": 0, "too_short": 6, "empty": 5},
            "chunk_status": {"called": 2200, "no_orf": 102, "ambiguous_only": 0, "too_short": 0, "empty": 0},
            "calls": {
                "records": {"others": 711, "virus": 431, "ambiguous": 8, "not_called": 51},
                "chunks": {"others": 1303, "virus": 885, "ambiguous": 12, "not_called": 102},
                "orfs": {"others": 2209, "virus": 1194},
            },
        },
        "figures": merge_metrics(
            [stages(**{stage: 1.0 + number for number, stage in enumerate(STAGES)})],
            [rank(protein_processed=8888, dna_processed=7777)],
            1234,
            {},
        ),
    }


def test_the_closing_lines_hold_the_figures_of_run_json(run):
    text = "\n".join(summary_lines(run))
    figures = run["figures"]

    for stage, taken in figures["stages"].items():
        (line,) = [line for line in text.splitlines() if f". {stage} " in line]
        assert f"{taken['seconds']:.2f} s" in line
        assert f"{taken['share']:.1%}" in line
    for name, encoder in figures["encoders"].items():
        (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{name} ") and "tokens/s" in line]
        assert f"{encoder['tokens']:,} tokens" in line
        assert f"packing efficiency {encoder['packing_efficiency']:.1%}" in line
        assert f"{encoder['tokens_per_second']:,.0f} tokens/s" in line
    assert f"packing efficiency {figures['packing_efficiency']:.1%}" in text
    assert f"filled {figures['budget_fill']:.1%}" in text
    assert "300 MiB" in text
    for told in (
        "1,201 records",
        "345,678 bases",
        "2,302 chunks",
        "3,403 ORFs, 1,194 of them viral",
        "99 of 3,403",
        "17 of 3,304",
        "mates: 1,902 records of 3 files",
        "skipped as repeats of other reads: 32 secondary and 17 supplementary alignments",
    ):
        assert told in text
    assert "1,150 called + 40 no_orf + 6 too_short + 5 empty" in text
    assert "records: 711 others, 431 virus, 8 ambiguous, 51 not called" in text
    assert "chunks: 1,303 others, 885 virus, 12 ambiguous, 102 not called" in text


def test_the_closing_lines_need_nothing_but_run_json(run):
    assert summary_lines(json.loads(json.dumps(run))) == summary_lines(run)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (("counts", "calls", "records", "virus"), "9,999 virus"),
        (("counts", "records"), "9,999 records"),
        (("figures", "batches"), "9999 batches"),
        (("figures", "wait_max_ms"), "max 9999.0 ms"),
    ],
)
def test_a_figure_changed_in_run_json_changes_the_lines(run, path, told):
    changed = copy.deepcopy(run)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = 9999

    assert told not in "\n".join(summary_lines(run))
    assert told in "\n".join(summary_lines(changed))


def test_what_was_found_is_said_in_one_line(run):
    assert found_line(run) == (
        "Found: 431 of 1,201 records viral, 711 not, 8 undecided, 51 not called (40 no_orf, 6 too_short, 5 empty)"
    )


def test_the_demo_model_is_told_loudly(run):
    assert DEMO_WARNING.upper() not in "\n".join(summary_lines(run))
    run["model"]["demo"] = True
    assert DEMO_WARNING.upper() in summary_lines(run)[-1]


def test_gpu_memory_and_utilisation_are_told_where_known(run):
    assert "GPU" not in "\n".join(summary_lines(run))
    run["figures"] |= {"gpu_peak_memory_bytes": 6 * 2**30, "gpu_utilisation_percent": 81.4}
    assert "6.0 GiB on the GPU, GPU utilisation 81 %" in "\n".join(summary_lines(run))
    run["figures"] |= {"gpu_utilisation_percent": None}
    assert "utilisation" not in "\n".join(summary_lines(run))


def test_what_the_embedding_cache_had_is_told_where_there_is_one(run):
    run["figures"]["encoders"][DNABERT_S] |= {"sequences": 1, "cached": 2999}
    run["figures"]["encoders"][ESM2] |= {"sequences": 20, "cached": 0}
    assert "cache" not in "\n".join(summary_lines(run))
    run["embedding_cache"] = "folder"
    (line,) = [line for line in summary_lines(run) if "cache" in line]
    assert line.strip() == (
        "found in the embedding cache: 2,999 of 3,000 sequences for DNABERT-S, 0 of 20 sequences for ESM-2"
    )


def test_input_without_records_has_closing_lines(run):
    run["counts"] |= {"records": 0, "bases": 0, "chunks": 0, "orfs": 0, "unique_orfs": 0}
    for counts in (run["counts"]["record_status"], run["counts"]["chunk_status"], *run["counts"]["calls"].values()):
        counts.update(dict.fromkeys(counts, 0))

    text = "\n".join(summary_lines(run))

    assert "0 records, 0 bases = none" in text
    assert "records: none" in text
