"""Plot of a training."""

from pathlib import Path
from typing import Any

from virnucpro_pl.files.durable import replacing


def plot_curves(history: list[dict[str, Any]], best_epoch: int, path: Path) -> None:
    """Plot loss and average precision of the validation split over the epochs as PNG, with the best epoch marked."""
    from matplotlib.figure import Figure  # slow to import

    epochs = [row["epoch"] + 1 for row in history]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, names, title in zip(
        figure.subplots(1, 2),
        (
            {"train_loss": "training", "val_loss": "validation"},
            {"val_average_precision": "average precision", "val_auroc": "AUROC"},
        ),
        ("Loss", "Validation part, single ORFs"),
        strict=True,
    ):
        for name, label in names.items():
            axes.plot(epochs, [row[name] for row in history], marker="o" if len(epochs) < 30 else None, label=label)
        axes.axvline(best_epoch + 1, color="grey", linestyle=":", label="kept")
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=150, format="png")
