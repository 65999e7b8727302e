"""Statistics with many texts or many heads: a trace of a tiny model as a process of its own, CPU seconds and peak memory.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/texts_scale.py --case 10000
    .venv/bin/python benchmarks/texts_scale.py --case 10000 --case 100000 --case heads --out results/texts.json

Models and texts come from a seed: random GPT-NeoX, texts of 4 to 8 words, of which one of two small sets decides the label, with a
fifth of the labels flipped. The model is tiny, so that nearly all of the cost is probes, scores, resamples and permutations.
"""

import argparse
import csv
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from results_scale import COMMAND, timed
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from ontogeny.worlds import hearsay

MARKS = 20
"""Words that stand for a class."""


@dataclass(frozen=True)
class Case:
    texts: int
    layers: int
    heads: int
    width: int
    checkpoints: int
    sites: str
    cpu: float
    """Bound in CPU seconds."""
    gb: float | None
    """Bound of the peak."""


CASES = {
    "10000": Case(10_000, 2, 2, 32, 2, "resid", 9.0, None),
    "100000": Case(100_000, 2, 2, 32, 2, "resid", 60.0, 1.5),
    "heads": Case(1_000, 40, 64, 256, 1, "resid,head", 71.5, 1.45),
}


def make(folder: Path, case: Case) -> tuple[Path, Path]:
    """Checkpoints and a file of texts."""
    tokenizer = hearsay.tokenizer(hearsay.make(hearsay.Config(families=64, context=64)))
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=case.width,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        intermediate_size=2 * case.width,
        max_position_embeddings=64,
    )
    for step in range(1, case.checkpoints + 1):
        torch.manual_seed(step)
        here = folder / "model" / f"checkpoint-{step}"
        AutoModelForCausalLM.from_config(config).save_pretrained(here)
        tokenizer.save_pretrained(here)
    rng = np.random.default_rng(0)
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha())
    marks, others = (words[:MARKS], words[MARKS : 2 * MARKS]), words[2 * MARKS :]
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "group"])
        for number in range(case.texts):
            label = number % 2
            text = [others[i] for i in rng.integers(len(others), size=rng.integers(3, 8))]
            mark = marks[label if rng.random() > 0.2 else 1 - label][rng.integers(MARKS)]
            # A number keeps texts apart: equal ones would be read once.
            rows.writerow([" ".join([*text, mark]) + f" {number}", label, number])
    return folder / "model", folder / "texts.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="Repeat for more; 10000 by default.")
    parser.add_argument("--out", type=Path, help="JSON file that keeps the table.")
    args = parser.parse_args()
    table = {}
    for name in args.case or ["10000"]:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            model, texts = make(Path(folder), case)
            cost, output = timed(
                *(COMMAND, "trace", model, "-c", texts, "--sites", case.sites, "--no-untrained", "--quiet"),
                *("--out", Path(folder) / "run"),
            )
        table[name] = asdict(case) | {"measured": asdict(cost)}
        bound = f"at most {case.cpu:g} s" + (f" and {case.gb:g} GB" if case.gb else "")
        print(f"{name}: {cost.cpu:.1f} CPU-s, {cost.peak_gb:.2f} GB, exit {cost.exit}; {bound}", flush=True)
        if cost.exit:
            print("   ", output.strip()[-300:], flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
