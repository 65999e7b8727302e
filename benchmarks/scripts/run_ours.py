"""`ontogeny.trace` with its default statistics on the same checkpoints and texts."""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path = [p for p in sys.path if p != str(Path(__file__).parent)]

import common

# Imports of the job, which do not count.
import duckdb  # noqa: F401
import scipy.linalg  # noqa: F401
import sklearn.feature_extraction.text
import sklearn.linear_model  # noqa: F401
import torch
import transformers.models.gpt_neox.modeling_gpt_neox  # noqa: F401
from counts import counting

from ontogeny import Concept, Lineage
from ontogeny.jobs.trace.trace import trace
from ontogeny.measurements.settings import TraceSettings


def main():
    torch.set_num_threads(1)
    arguments = common.arguments()
    shutil.rmtree(arguments.out, ignore_errors=True)
    clock = common.Clock()
    with clock("trace"), counting() as seen:
        # The checkpoints are random initialisations, so no untrained floor is needed.
        settings = TraceSettings(
            untrained=False,
            dtype=arguments.mode if arguments.mode in ("bfloat16", "float16") else "float32",
            protocol="single-split" if arguments.mode == "single-split" else "cross-fit",
        )
        run = trace(
            Lineage.open(arguments.folder),
            [Concept.from_file(arguments.ids.with_suffix(".csv"))],
            arguments.out,
            settings,
        )
    ledger = [entry for entry in run.ledger() if "forwards" in entry]
    texts, steps = len(arguments.work["ids"]), len(arguments.checkpoints)
    real = sum(map(len, arguments.work["ids"])) * steps
    run_for_texts = sum(e["tokens"] for e in ledger)
    counts = {
        "tokens_per_real_token": run_for_texts / real,
        "first_block_tokens_per_real_token": sum(e["first_block_tokens"] for e in ledger) / real,
        "lm_head_calls": seen["lm_head calls"],
        "forwards_per_text_and_checkpoint": sum(e["forwards"] for e in ledger) / steps / texts,
        "tokens_of_validation": seen["tokens"] - run_for_texts,
        "models_built": seen["models"],
        "bytes_read_into_place": seen["bytes"],
    }
    for stage in ("load", "read", "measure"):
        clock.stages[f"{stage} (wall)"] = sum(e["seconds"][stage] for e in ledger)
    last = run.records("metric = 'accuracy' and method = 'logistic' and control is null and head is null")
    last = last[last.step == last.step.max()].sort_values("layer")
    clock.tell(["torch", "transformers", "ontogeny"], counts=counts, accuracies={"layers": last.value.tolist()})


if __name__ == "__main__":
    main()
