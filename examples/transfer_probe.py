"""Does a probe of one checkpoint read another one? Cross-checkpoint AUROC of each probe.

python examples/transfer_probe.py [CHECKPOINTS]
"""

import sys

import ontogeny as on

source = sys.argv[1] if len(sys.argv) > 1 else "EleutherAI/pythia-160m"
reading = on.TraceSettings(
    sites="resid", fits=("logistic", "mass_mean"), resamples=200, permutations=200, untrained=False
)
run = on.transfer(
    on.Lineage.open(source).select("log:3"),
    on.load_concept("subject_number", limit=80),
    settings=on.TransferSettings(effect=False),
    reading=reading,
)
print(run.show("transfer").to_dict()["description"])
print(run.records(metric="transfer_auroc", control=None)[["step", "value", "coords"]].head().to_string())
