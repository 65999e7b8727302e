"""Profile of one checkpoint: operators of the forward pass, functions of the statistics.

Run: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/where.py --texts 1000` (half a minute). Profilers cost time of their own: shares tell,
not seconds.
"""

import argparse
import cProfile
import pstats
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
import workload
from torch.profiler import ProfilerActivity, profile

from ontogeny import Concept
from ontogeny.activations.activations import Activations
from ontogeny.activations.capture import capture_workload
from ontogeny.activations.workload import build_workload as cut
from ontogeny.measurements.design import make_design
from ontogeny.measurements.measure import measure_concept
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.model import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="70m")
    parser.add_argument("--texts", type=int, default=1000)
    told = parser.parse_args()
    torch.set_num_threads(1)
    work = workload.make(told.shape, told.texts, 1)
    model, concept, settings = (
        load_model(work.checkpoints[0], tokenizer=work.folder),
        Concept.from_file(work.texts),
        TraceSettings(),
    )
    texts, rows = cut([concept], model.tokenizer, model.context)
    sites, of = model.sites("resid,head"), make_design(concept, settings)
    captured = capture_workload(model, texts, sites)
    seen = Activations.of(concept, captured, rows[concept.name])
    measure_concept(of, seen.parts, seen.sites, seen.inputs, settings)

    began = time.process_time()
    capture_workload(model, texts, sites)
    middle = time.process_time()
    measure_concept(of, seen.parts, seen.sites, seen.inputs, settings)
    print(
        f"pass {middle - began:.2f} CPU s, fits and statistics {time.process_time() - middle:.2f} CPU s, without profilers\n"
    )

    with profile(activities=[ProfilerActivity.CPU]) as operators:
        capture_workload(model, texts, sites)
    print(operators.key_averages().table(sort_by="self_cpu_time_total", row_limit=10, max_name_column_width=36))
    functions = cProfile.Profile(time.process_time)
    functions.runcall(measure_concept, of, seen.parts, seen.sites, seen.inputs, settings)
    pstats.Stats(functions).sort_stats("cumtime").print_stats("ontogeny", 24)


if __name__ == "__main__":
    main()
