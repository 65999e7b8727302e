"""Is the effect of a steering vector more than chance? Compare it with random directions of equal norm.

python examples/evaluate_vector.py [CHECKPOINTS]
"""

import sys

import ontogeny as on

source = sys.argv[1] if len(sys.argv) > 1 else "EleutherAI/pythia-160m"
lineage = on.Lineage.open(source).select("last")
settings = on.EvaluationSettings(
    alphas=(0.0, 1.0), sites="resid.1", controls=20, shuffles=0, samples=1, tokens=4, limit=20
)
run = on.evaluate(lineage, on.load_concept("subject_number", limit=80), "runs/evaluation", settings, methods=["caa"])

effects = run.records(metric="steering_effect", method="caa")
print(effects[["step", "value", "low", "high", "control"]].head(8).to_string())
print("not evaluated:", run.failures or "nothing")
