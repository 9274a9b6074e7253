"""The three commands of the README go from a folder of labelled FASTA to a trained head and pictures."""

import re
from collections.abc import Callable
from pathlib import Path

from support import CHECKOUT, Result


def test_the_three_commands_of_the_readme(cli: Callable[..., Result], genomes: Path, tmp_path: Path) -> None:
    section = (CHECKOUT / "README.md").read_text(encoding="utf-8").split("## Train a head")[1]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert block is not None
    commands = [line.split()[3:] for line in block[1].replace("\\\n", " ").strip().splitlines()]
    assert [words[0] for words in commands] == ["prepare", "train", "test"]
    quick = {
        "train": ["trainer.max_epochs=2", "trainer.accelerator=cpu"],
        "test": ["trainer.accelerator=cpu", "resamples=20"],
    }
    for name, *words in commands:
        words = [word for word in words if not word.startswith("model=")]  # whose weights would be fetched
        words = [re.sub(r"=(dataset|head|tested)\b", rf"={tmp_path}/\1", word) for word in words]
        words = [word.replace("input=genomes/", f"input={genomes}") for word in words]
        result = cli(name, *words, *quick.get(name, ()))
        assert result.code == 0, result.err
    made = {path.name for path in (tmp_path / "tested").iterdir()}
    assert made >= {
        "head.safetensors",
        "roc.png",
        "precision_recall.png",
        "calibration.png",
        "lengths.png",
        "metrics.json",
    }
    head = f"model.head.weights={tmp_path / 'tested' / 'head.safetensors'}"
    assert cli("predict", f"output={tmp_path / 'results'}", head, "trainer.accelerator=cpu").code == 0
