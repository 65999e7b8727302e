"""Which layer reads whether the subject is plural? Fit a probe at every site of one model, on held-out groups.

python examples/probe_activations.py [MODEL]
"""

import sys

import ontogeny as on

model = on.load_model(sys.argv[1] if len(sys.argv) > 1 else "EleutherAI/pythia-160m")
concept = on.load_concept("subject_number", limit=120)
activations = on.capture(model, concept, sites="resid")

# A fit is plain: hold groups out yourself, since texts of one group are nearly the same text.
held_out = activations.groups % 3 == 0
probe = on.fit_probe(activations.select(~held_out), "mass_mean")
scores = probe.score(activations.select(held_out))

print(scores.to_string())
print(f"best site: {scores.idxmax()}")
