"""What did a later stage change? Compare the confidence of the stages of a lineage on neutral texts.

python examples/compare_stages.py [BASE POST]
"""

import sys

import ontogeny as on

base, post = sys.argv[1:3] if len(sys.argv) > 2 else ("EleutherAI/pythia-160m", "path/to/sft")
lineage = on.Lineage.open(base, stage="base").select("last").with_stage("sft", post).select("base=last;sft=last")
concept = on.load_concept("subject_number", limit=80)
inputs = on.StudyInputs(neutral=concept.texts, questions=concept.answers)
run = on.compare(lineage, inputs, "runs/comparison", "confidence")

table = run.records(control=None).pivot_table(index="metric", columns="stage", values="value")
print(table.head(12).to_string())
