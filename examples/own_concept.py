"""Make a concept of your own: from contrast pairs, or from a data frame. Its display shows what words alone predict.

python examples/own_concept.py
"""

import pandas as pd

import ontogeny as on

cities = ("Oslo", "Rome", "Lima", "Cairo", "Delhi", "Paris", "Quito", "Seoul", "Tunis", "Vienna", "Warsaw", "Zagreb")
lands = (
    "Norway",
    "Italy",
    "Peru",
    "Egypt",
    "India",
    "France",
    "Ecuador",
    "Korea",
    "Tunisia",
    "Austria",
    "Poland",
    "Croatia",
)
true = [f"{city} is in {land}." for city, land in zip(cities, lands, strict=True)]
false = [f"{city} is in {land}." for city, land in zip(cities, (*lands[1:], lands[0]), strict=True)]
pairs = on.Concept.from_pairs(true, false, name="capitals")

frame = pd.DataFrame({"text": true + false, "label": ["true"] * 12 + ["false"] * 12, "group": list(cities) * 2})
table = on.load_concept(frame, name="capitals_table", positive="true")

for concept in (pairs, table):
    print(concept.name, len(concept.examples), "examples in", len(set(concept.group_ids().tolist())), "groups")
print(len(pairs._repr_html_()), "characters of HTML in a notebook")
