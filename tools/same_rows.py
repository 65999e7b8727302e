"""Compare all rows of the runs under two folders, bit for bit: `python tools/same_rows.py A B`.

A run is a folder with a run.json; runs are paired by their path below A and B. Two rows are equal where all columns are: numbers as
doubles (NaN equals NaN), coords as sorted pairs. Prints the count of rows of each run; exit code 1 if anything differs.
"""

import argparse
import sys
from pathlib import Path

import duckdb


def find_runs(folder: Path) -> dict[str, Path]:
    """Run directories below a folder, by their relative path."""
    return {str(path.parent.relative_to(folder)): path.parent for path in sorted(folder.rglob("run.json"))}


def rows_of(run: Path) -> str:
    """A query of all rows of a run, in a form in which equal text means equal bits."""
    pattern = str(run / "records" / "**" / "*.parquet").replace("'", "''")
    source = f"read_parquet('{pattern}', union_by_name = true)"
    columns = []
    for name, kind, *_ in duckdb.sql(f"describe select * from {source}").fetchall():
        if kind.startswith("MAP"):
            columns.append(f"cast(list_sort(map_entries({name})) as varchar) as {name}")
        elif kind in ("DOUBLE", "FLOAT"):
            columns.append(f"format('{{:a}}', {name}) as {name}")
        else:
            columns.append(name)
    return f"select {', '.join(columns)} from {source}"


def count(query: str) -> int:
    """Number of rows of a query."""
    (found,) = duckdb.sql(f"select count(*) from ({query})").fetchall()[0]
    return int(found)


def main() -> int:
    """Compare two folders of runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, help="Folder that holds runs.")
    parser.add_argument("b", type=Path, help="Folder that holds the same runs, made by other code.")
    parser.add_argument("--show", type=int, default=3, help="How many differing rows of a run are printed.")
    args = parser.parse_args()
    mine, theirs = find_runs(args.a), find_runs(args.b)
    failed, total = sorted(set(mine) ^ set(theirs)), 0
    for name in failed:
        print(f"{name}: only in {args.a if name in mine else args.b}")
    for name in sorted(set(mine) & set(theirs)):
        a, b = rows_of(mine[name]), rows_of(theirs[name])
        gone, new = f"({a}) except all ({b})", f"({b}) except all ({a})"
        rows, lost, added = count(a), count(gone), count(new)
        total += rows
        print(f"{name}: {rows} rows, {'equal' if lost == added == 0 else f'{lost} only in A, {added} only in B'}")
        if lost or added:
            failed.append(name)
            for query in (gone, new):
                print(duckdb.sql(f"select * from ({query}) order by all limit {args.show}").df().to_string())
    print(f"{total} rows of {len(set(mine) & set(theirs))} runs compared: {'DIFFERENT' if failed else 'all bit-equal'}")
    return 1 if failed or not total else 0


if __name__ == "__main__":
    sys.exit(main())
