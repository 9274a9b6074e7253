"""Figures of merit, against scikit-learn and plain search."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from virnucpro_pl.errors import UserError
from virnucpro_pl.training import evaluation
from virnucpro_pl.training.calibration import choose_threshold, fit_temperature
from virnucpro_pl.training.evaluation import (
    ScoredChunks,
    _bins_of,
    _curve_areas,
    _drawn_groups,
    by_group,
    by_length,
    chunk_scores,
    confidence_intervals,
    figures,
    recall_of_all,
)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """Figures of merit as scikit-learn computes them."""
    return pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed: make test-optional")


def chunks(num: int = 400, seed: int = 0, groups: int = 8) -> ScoredChunks:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num).astype(np.uint8)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(2)
    names = np.array([f"g{label}{number}" for label, number in zip(labels, rng.integers(0, groups, num), strict=True)])
    return ScoredChunks(labels, scores, names, rng.choice([150, 151, 300, 500], num))


def test_figures_are_those_of_scikit_learn(reference: ModuleType) -> None:
    some = chunks()
    found = figures(some, 0.5)
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(some.labels, some.scores), abs=1e-6)
    expected = reference.average_precision_score(some.labels, some.scores)
    assert found["average_precision"] == pytest.approx(expected, abs=1e-6)
    called = some.scores >= 0.5
    assert found["tp"] == int((called & (some.labels == 1)).sum())
    assert found["recall"] == pytest.approx(found["tp"] / some.labels.sum())
    assert found["precision"] == pytest.approx(found["tp"] / called.sum())
    assert found["false_positive_rate"] == pytest.approx((called & (some.labels == 0)).sum() / (some.labels == 0).sum())


def test_what_one_class_does_not_define_is_none(recwarn: pytest.WarningsRecorder) -> None:
    some = chunks()
    found = figures(some.select(some.labels == 1), 0.5, resamples=10)
    assert found["auroc"] is None
    assert found["false_positive_rate"] is None
    assert "intervals" not in found


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2, max_size=30))
def test_areas_of_histograms_are_those_of_scikit_learn_with_ties(
    reference: ModuleType, rows: list[tuple[int, int]]
) -> None:
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    if 0 < labels.sum() < len(labels):
        bins = _bins_of(scores.astype(np.float64), labels)
        others, virus = (np.bincount(bins[labels == label], minlength=8)[None].astype(float) for label in (0, 1))
        auroc, average_precision = _curve_areas(others, virus)
        assert auroc[0] == pytest.approx(reference.roc_auc_score(labels, scores))
        assert average_precision[0] == pytest.approx(reference.average_precision_score(labels, scores))


@pytest.mark.parametrize("share", [0.5, 0.01, 0.001])
def test_areas_of_binned_scores_are_right_to_a_thousandth_also_where_few_are_viral(
    reference: ModuleType, share: float
) -> None:
    rng = np.random.default_rng(5)
    labels = (rng.random(400_000) < share).astype(np.uint8)
    scores = 1 / (1 + np.exp(-rng.normal(5.0 * labels - 2, 1.5)))
    bins = _bins_of(scores, labels)
    others, virus = (np.bincount(bins[labels == label], minlength=2048)[None].astype(float) for label in (0, 1))
    assert others.shape == virus.shape == (1, 2048)
    auroc, average_precision = _curve_areas(others, virus)
    assert auroc[0] == pytest.approx(reference.roc_auc_score(labels, scores), abs=1e-3)
    assert average_precision[0] == pytest.approx(reference.average_precision_score(labels, scores), abs=1e-3)


def test_groups_are_drawn_with_replacement_also_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of draws are multinomial: their sum is fixed, and mean, variance and covariance are known."""
    monkeypatch.setattr(evaluation, "_BLOCK_GROUPS", 3)
    monkeypatch.setattr(evaluation, "_BINS", 10)
    groups = np.repeat(np.arange(10), 2)[np.random.default_rng(6).permutation(20)]  # two chunks each, in any order
    called = groups >= 4
    drawn, positive = _drawn_groups(groups.astype(str), groups, called, 20_000, np.random.default_rng(0))
    counts = drawn / 2
    assert (counts.sum(axis=1) == 10).all()
    assert (counts == counts.round()).all()
    assert (positive == 2 * counts[:, 4:].sum(axis=1)).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(10), abs=0.05)
    assert np.cov(counts.T) == pytest.approx(np.eye(10) - 0.1, abs=0.05)


def test_intervals_hold_the_figure_and_are_wider_for_groups_than_for_chunks() -> None:
    rng = np.random.default_rng(1)
    group = rng.integers(0, 12, 2000)
    labels = (group >= 6).astype(np.uint8)
    scores = np.clip(0.35 + 0.1 * labels + 0.25 * np.sin(group * 2.1) + rng.normal(0, 0.05, 2000), 0, 1)
    names = np.char.add("g", group.astype(str))
    by_groups, unit = confidence_intervals(ScoredChunks(labels, scores, names, group), 0.5, 300, 0)
    singles = np.char.add("virus", labels.astype(str))
    by_chunks, other_unit = confidence_intervals(ScoredChunks(labels, scores, singles, group), 0.5, 300, 0)
    assert (unit, other_unit) == ("groups", "chunks")
    value = figures(ScoredChunks(labels, scores, names, group), 0.5)["auroc"]
    for intervals in (by_groups, by_chunks):
        low, high = intervals["auroc"]
        assert low < value < high
    assert np.diff(by_groups["auroc"]) > 3 * np.diff(by_chunks["auroc"])


def test_intervals_cover_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of independent chunks, where theory is simple: recall is a share."""
    monkeypatch.setattr(evaluation, "_BINS", 2)  # there are no more scores
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(60):
        labels = np.repeat([0, 1], 200).astype(np.uint8)
        scores = np.where(rng.random(400) < 0.3, 0.9, 0.1)
        some = ScoredChunks(labels, scores, np.array(["a"] * 400), labels)
        low, high = confidence_intervals(some, 0.5, 200, 0)[0]["recall"]
        inside += low <= 0.3 <= high
    assert 50 <= inside <= 60


def test_chunk_score_calls_as_the_published_consensus() -> None:
    rng = np.random.default_rng(3)
    virus = rng.random(300)
    owners = np.sort(rng.integers(0, 100, 300))
    scores = chunk_scores(virus, owners, 101)
    for chunk in range(101):
        mine = virus[owners == chunk]
        if len(mine):
            assert (scores[chunk] >= 0.5) == (mine.max() >= (1 - mine).max())
        else:
            assert np.isnan(scores[chunk])


def test_figures_by_length_and_group_count_what_is_there() -> None:
    some = chunks()
    lengths = by_length(some, 0.5, 0, 0)
    assert list(lengths) == [150, 300, 500]
    assert lengths[150]["chunks"] == int(np.isin(some.lengths, (150, 151)).sum())
    rows = by_group(some, 0.5)
    assert sum(row["chunks"] for row in rows) == 400
    for row in rows:
        mine = some.scores[(some.groups == row["group"]) & (some.labels == (row["class"] == "virus"))]
        assert row["chunks"] == len(mine)
        assert row["mean_score"] == pytest.approx(mine.mean())
        assert row["share_called_viral"] == pytest.approx((mine >= 0.5).mean())
    assert {row["class"] for row in rows} == {"virus", "others"}


def test_recall_of_all_counts_fragments_without_an_orf_as_missed() -> None:
    def viral(*scores: float) -> ScoredChunks:
        names = np.array(["g"] * len(scores))
        return ScoredChunks(np.ones(len(scores), np.uint8), np.array(scores), names, np.full(len(scores), 300))

    # 2 of 4 with an ORF, so of 8; 1 of 1 with one, so of 2.
    assert recall_of_all([viral(0.9, 0.8, 0.1, 0.2), viral(0.7)], [0.5, 0.5], 0.5) == pytest.approx(3 / 10)
    assert recall_of_all([viral()], [0.5], 0.5) is None
    assert recall_of_all([viral()], [0.0], 0.5) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), min_size=2, max_size=25), st.floats(0.05, 1.0))
def test_threshold_is_the_lowest_that_keeps_the_promise(rows: list[tuple[int, int]], wanted: float) -> None:
    labels = np.array([label for label, _ in rows], dtype=np.uint8)
    scores = np.array([score / 10 + 0.05 for _, score in rows])
    if not 0 < labels.sum() < len(labels):
        return
    for keyword in ("precision", "false_positive_rate"):

        def keeps(threshold: float, keyword: str = keyword) -> bool:
            called = scores >= threshold
            if keyword == "precision":
                return bool((called & (labels == 1)).any() and labels[called].mean() >= wanted)
            return bool((called & (labels == 0)).sum() / (labels == 0).sum() <= wanted)

        possible = [value for value in np.unique(scores) if keeps(value)]
        if not possible:
            with pytest.raises(UserError, match="threshold"):
                choose_threshold(scores, labels, **{keyword: wanted})
            continue
        found = choose_threshold(scores, labels, **{keyword: wanted})
        assert ((scores >= found) == (scores >= min(possible))).all()


PROMISES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
EXTREMES = st.sampled_from([0.0, 9e-7, 1e-6, 0.3, 0.7, 1 - 1e-7, 1.0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), EXTREMES), min_size=2, max_size=8), PROMISES, PROMISES)
@example(rows=[(1, 0.0), (0, 0.3)], precision=0.5, rate=1.0)
@example(rows=[(1, 9e-7), (1, 1e-6), (0, 9e-7)], precision=1.0, rate=1.0)
@example(rows=[(1, 1.0), (0, 1 - 1e-7)], precision=0.0, rate=0.0)
def test_a_threshold_is_given_only_where_it_keeps_all_that_was_promised(rows, precision: float, rate: float) -> None:
    """Also where scores are as good as 0 or 1, and for both promises at once."""
    labels = np.array([label for label, _ in rows], dtype=np.uint8)
    scores = np.array([score for _, score in rows])
    if not 0 < labels.sum() < len(labels):
        return
    try:
        found = choose_threshold(scores, labels, precision, rate)
    except UserError:
        return
    assert 0 < found < 1
    called = scores >= found
    assert labels[called].mean() >= precision
    assert called[labels == 0].mean() <= rate


def test_where_all_scores_are_0_or_1_a_threshold_lies_between_them_or_is_refused() -> None:
    labels = np.array([0, 1], dtype=np.uint8)
    assert 0 < choose_threshold(np.ones(2), labels, precision=0.5) < 1
    with pytest.raises(UserError, match="every score of the validation split is 0"):
        choose_threshold(np.zeros(2), labels, precision=0.5)


def test_two_promises_that_only_fail_together_are_told_as_such() -> None:
    scores = np.array([0.9, 0.8, 0.5, *[0.4] * 8, 0.1])
    labels = np.array([0, 1, 0, *[1] * 8, 0], dtype=np.uint8)
    assert choose_threshold(scores, labels, precision=0.8) == pytest.approx(0.25)
    assert choose_threshold(scores, labels, false_positive_rate=0.4) == pytest.approx(0.65)
    with pytest.raises(UserError, match=r"not reached within .* the lowest rate on the validation split is 0\.6667"):
        choose_threshold(scores, labels, precision=0.8, false_positive_rate=0.4)


def test_temperature_is_found_and_never_makes_it_worse() -> None:
    rng = np.random.default_rng(4)
    margins = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-margins))).astype(np.uint8)
    assert fit_temperature(3.0 * margins, labels) == pytest.approx(3.0, rel=0.05)
    assert fit_temperature(0.5 * margins, labels) == pytest.approx(0.5, rel=0.05)
    separable = np.array([-5.0, 5.0])
    assert 0.04 < fit_temperature(separable, np.array([0, 1], dtype=np.uint8)) <= 1.0
    assert fit_temperature(1000 * separable, np.array([0, 1], dtype=np.uint8)) == 1.0  # nothing to gain
