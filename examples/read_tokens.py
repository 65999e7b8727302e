"""At which word does a probe turn? Read the score of every token of a text, and save the coloured text as a page.

python examples/read_tokens.py [MODEL]
"""

import sys
from pathlib import Path

import ontogeny as on

model = on.load_model(sys.argv[1] if len(sys.argv) > 1 else "EleutherAI/pythia-160m")
probe = on.fit_probe(on.capture(model, on.load_concept("subject_number", limit=120)))
reading = on.read(model, probe, "The keys to the old cabinet are on the table", f"resid.{model.layers // 2}")

for token, score in zip(reading.tokens, reading.scores[0].tolist(), strict=True):
    print(f"{score:+8.3f}  {token!r}")
Path("tokens.html").write_text(f"<!doctype html><meta charset='utf-8'>{reading._repr_html_()}", encoding="utf-8")
