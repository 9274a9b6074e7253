"""The pictures of a test: all there, whatever the figures are, and nothing in a name is obeyed."""

import struct
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from virnucpro_pl.files.output_files import EVALUATION_PLOTS
from virnucpro_pl.training import evaluation_plots
from virnucpro_pl.training.evaluation import ScoredChunks, by_group, by_length, figures
from virnucpro_pl.training.evaluation_plots import plot_all


def chunks(num: int, group: str = "genome") -> ScoredChunks:
    rng = np.random.default_rng(0)
    labels = (np.arange(num) % 2).astype(np.uint8)
    names = np.char.add(f"{group} ", rng.integers(0, 30, num).astype(str))
    return ScoredChunks(labels, np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1), names, rng.choice([150, 300], num))


def metrics(some: ScoredChunks, temperature: float = 1.0) -> dict[str, object]:
    return {
        "overall": figures(some, 0.5, 20),
        "uncalibrated": figures(some, 0.5) if temperature != 1.0 else None,
        "threshold": 0.5,
        "temperature": temperature,
        "by_length": {str(length): one for length, one in by_length(some, 0.5, 20, 0).items()},
        "by_group": by_group(some, 0.5),
    }


def test_every_picture_is_a_png_wide_enough_to_read(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    some = chunks(500)
    plot_all(tmp_path, some, metrics(some, 2.0), "test", some)
    assert {path.name for path in tmp_path.iterdir()} == set(EVALUATION_PLOTS)
    for path in tmp_path.iterdir():
        head = path.read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        assert min(struct.unpack(">II", head[16:])) >= 600
    assert dict(mpl.rcParams) == before


def test_one_class_and_few_chunks_leave_out_what_is_not_defined(tmp_path: Path) -> None:
    some = chunks(9)
    viral = some.select(some.labels == 1)
    plot_all(tmp_path, viral, metrics(viral), "test")
    assert {path.name for path in tmp_path.iterdir()} == {"calibration.png", "lengths.png", "groups.png"}


def test_names_of_groups_are_shown_as_they_are(tmp_path: Path) -> None:
    names = ["$x^{$", "病毒", "a\x1b[2J\n", "long " * 30, ""]
    row = {"class": "others", "chunks": 20, "mean_score": 0.5, "share_called_viral": 0.5}
    evaluation_plots._plot_groups(tmp_path / "groups.png", [{**row, "group": name} for name in names], "title")
    assert (tmp_path / "groups.png").is_file()
    for shown in map(evaluation_plots._shown, names):
        assert shown.isprintable()
        assert 0 < len(shown) <= 36


def test_the_worst_groups_come_first_and_tiny_ones_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}
    monkeypatch.setattr(evaluation_plots, "_save", lambda figure, path: drawn.update(figure=figure))
    row = {"class": "virus", "mean_score": 0.5}
    groups = [{**row, "group": f"g{n}", "chunks": 100, "share_called_viral": n / 40} for n in range(40)]
    groups.append({**row, "group": "tiny", "chunks": 1, "share_called_viral": 0.0})
    evaluation_plots._plot_groups(tmp_path / "groups.png", groups, "title")
    (axes,) = drawn["figure"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"g{n}" for n in range(15)]
    assert "15 of 41 groups" in axes.get_title(loc="left")


def test_the_points_of_a_reliability_curve_are_means_of_tenths() -> None:
    some = ScoredChunks(
        np.array([0, 1, 1], np.uint8), np.array([0.12, 0.18, 1.0]), np.array(["g"] * 3), np.full(3, 300)
    )
    assert evaluation_plots._reliability(some) == (pytest.approx([0.15, 1.0]), pytest.approx([0.5, 1.0]))
