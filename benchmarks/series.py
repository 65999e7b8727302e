"""A series of checkpoints of the Llama shape, all layers: ours with all statistics beside `deepsteer`'s probe of a series.

Run: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/series.py` (two minutes; the first time its environment is installed). CPU seconds of
one thread, medians of rounds that take turns. Both read the mean over the tokens of the same texts at the end of every block; deepsteer
fits one linear probe a layer by 50 epochs of Adam and says its accuracy on a fifth of the pairs; ours cross-fits four probes with
intervals, label permutations, random directions, dependence and geometry, and writes a run that resumes.
"""

import argparse
import csv
import json
import shutil
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path

import environments

HERE = Path(__file__).parent
ROOT = HERE.parent / ".bench" / "series"
SHAPE = {
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "intermediate_size": 1376,
    "vocab_size": 300,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--checkpoints", type=int, default=3)
    options = parser.parse_args()
    folder = make(options.texts, options.checkpoints)
    found: dict[str, list[dict]] = {"ours": [], "deepsteer": []}
    try:
        theirs = environments.python_of("deepsteer")
    except RuntimeError as error:
        theirs = None
        print(f"deepsteer 0.2.0 cannot be installed here: {error}", flush=True)
    for _ in range(options.rounds):
        found["ours"].append(run(Path(sys.executable), "run_series_ours.py", folder))
        if theirs is not None:
            found["deepsteer"].append(run(theirs, "run_deepsteer.py", folder))
    rows = {name: summary(runs) for name, runs in found.items() if runs}
    result = {
        "shape": SHAPE,
        "texts": options.texts,
        "checkpoints": options.checkpoints,
        "rounds": options.rounds,
        "rows": rows,
    }
    path = HERE / "results" / f"series-{date.today()}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(rows, indent=2))


def summary(runs: list[dict]) -> dict:
    return {
        "cpu s": round(statistics.median(r["cpu"] for r in runs), 2),
        "cpu s, spread": [round(min(r["cpu"] for r in runs), 2), round(max(r["cpu"] for r in runs), 2)],
        "accuracy of the last checkpoint, by layer": runs[-1]["accuracies"],
        "numbers": runs[-1]["numbers"],
        "versions": runs[-1]["versions"],
    }


def run(python: Path, script: str, folder: Path) -> dict:
    command = [python, HERE / "scripts" / script, folder, folder / "ids.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if done.returncode or line is None:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    return json.loads(line.removeprefix("RESULT "))


def make(texts: int, checkpoints: int) -> Path:
    """Checkpoints with random weights, and texts in pairs whose label a word tells."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sys.path.insert(0, str(HERE.parent))
    from tests.helpers.tiny_models import byte_tokenizer

    folder = ROOT / f"{texts}-{checkpoints}"
    if (folder / "ids.json").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    for step in range(1, checkpoints + 1):
        torch.manual_seed(step)
        place = folder / f"checkpoint-{step}"
        LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(place)
        byte_tokenizer().save_pretrained(place)
    names = ("north", "south", "coast", "valley", "market", "harbour", "orchard")
    pairs = [
        (f"the {names[i % 7]} {i} was kind to us", f"the {names[i % 7]} {i} was cold to us") for i in range(texts // 2)
    ]
    with (folder / "texts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "group"])
        writer.writerows(
            (text, 1 - side, number) for number, pair in enumerate(pairs) for side, text in enumerate(pair)
        )
    (folder / "ids.json").write_text(json.dumps({"pairs": pairs}))
    return folder


if __name__ == "__main__":
    main()
