"""When does a concept become readable? Trace it through the checkpoints of a training run.

python examples/trace_checkpoints.py [CHECKPOINTS]
"""

import sys

import ontogeny as on

source = sys.argv[1] if len(sys.argv) > 1 else "EleutherAI/pythia-160m"
lineage = on.Lineage.open(source).select("log:3")
settings = on.TraceSettings(sites="resid", resamples=200, permutations=200, untrained=False)
run = on.trace(lineage, on.load_concept("subject_number", limit=120), "runs/subject_number", settings)

print(
    run.records(metric="auroc", method="mass_mean", control=None)[["step", "site", "value", "low", "high"]].to_string()
)
run.show("emergence").save("emergence.html")
print(run.direction("subject_number"))
