"""Could a probe serve as a monitor? True-positive rate at a fixed false-positive rate, at every checkpoint.

python examples/monitor_classes.py [CHECKPOINTS]
"""

import sys

import ontogeny as on

source = sys.argv[1] if len(sys.argv) > 1 else "EleutherAI/pythia-160m"
settings = on.TraceSettings(sites="resid", resamples=200, permutations=200, untrained=False)
run = on.trace(on.Lineage.open(source).select("log:3"), on.load_concept("subject_number", limit=120), settings=settings)
on.monitor(run, rates=[0.05])

print(run.records("metric like 'tpr%'", method="mass_mean")[["step", "site", "value", "low", "high"]].to_string())
