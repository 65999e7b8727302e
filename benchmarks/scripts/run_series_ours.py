"""Ours on a series: a trace with all its statistics, at the end of every block, mean over the tokens."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path = [p for p in sys.path if p != str(Path(__file__).parent)]

import common
import torch
import transformers.models.llama.modeling_llama  # noqa: F401 - imports do not count

from ontogeny import Concept, Lineage, TraceSettings, trace
from ontogeny.data.positions import Position


def main():
    torch.set_num_threads(1)
    options = common.arguments()
    out = options.folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    concept = replace(Concept.from_file(options.folder / "texts.csv"), position=Position.parse("mean"))
    clock = common.Clock()
    run = trace(Lineage.open(options.folder), [concept], out, TraceSettings(sites="resid", untrained=False))
    rows = run.records("metric = 'accuracy' and method = 'logistic' and control is null")
    last = rows[rows["step"].eq(rows["step"].max()) & rows["layer"].gt(0)].sort_values("layer")
    count = int(run.query("select count(*) as n from records")["n"].iloc[0])
    accuracies = [round(float(v), 3) for v in last["value"]]
    clock.tell(["torch", "transformers"], accuracies=accuracies, numbers=count)


main()
