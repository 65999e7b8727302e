"""Take the table elsewhere: pandas, SQL, an Arrow stream for polars or pyarrow, and a picture of the width of a journal column.

python examples/export_table.py [CHECKPOINTS]
"""

import sys

import duckdb

import ontogeny as on

source = sys.argv[1] if len(sys.argv) > 1 else "EleutherAI/pythia-160m"
settings = on.TraceSettings(
    sites="resid", fits=("mass_mean", "logistic"), resamples=200, permutations=200, untrained=False
)
run = on.trace(on.Lineage.open(source).select("log:3"), on.load_concept("subject_number", limit=120), settings=settings)

run.records(metric="auroc", control=None).to_csv("auroc.csv", index=False)
print(
    run.query(
        "select step, max(value) as best from records where metric = 'auroc' and control is null group by step"
    ).to_string()
)
print(
    duckdb.sql("select count(*) as rows, count(distinct metric) as metrics from run")
)  # `polars.DataFrame(run)` reads it as well
run.show("layers").save("layers.svg")
