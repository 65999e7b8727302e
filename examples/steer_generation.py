"""What does a direction change in the text? Continue a prompt with and without it, beside a random direction of equal norm.

python examples/steer_generation.py [MODEL]
"""

import sys

import ontogeny as on

model = on.load_model(sys.argv[1] if len(sys.argv) > 1 else "EleutherAI/pythia-160m")
probe = on.fit_probe(on.capture(model, on.load_concept("subject_number", limit=120)), "mass_mean")
direction = probe.direction(f"resid.{model.layers // 2}").scaled("gap")
prompt = "The keys to the cabinet"

print("plain:  ", model.generate(prompt, tokens=12))
for name, vector in (("steered:", direction), ("random: ", direction.random(seed=0))):
    with on.steer(model, on.Add(vector, alpha=2)):
        print(name, model.generate(prompt, tokens=12))
