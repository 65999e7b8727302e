"""`ontogeny monitor`: what the probes of a run catch at low false-positive rates, and where a frozen threshold holds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

    from ontogeny.run import Run


def monitor(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    at: Annotated[
        list[float] | None,
        typer.Option("--at", help="False-positive rate, a share; repeat for more. Default: 0.01, 0.05."),
    ] = None,
    across: Annotated[
        list[str] | None,
        typer.Option(
            "--across",
            help="Concept file, as it was traced; repeat: each one's probes on the others' texts at the last checkpoint.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows at the best sites as JSON.")] = False,
) -> None:
    """Say what probes catch at a false-positive rate, and what a threshold frozen at one stage does at the others."""
    from ontogeny.lab.monitor import RATES
    from ontogeny.lab.monitor import monitor as watch
    from ontogeny.run import Run, text

    opened = Run.open(run)
    if across:
        _across(opened, across, as_json)
        return
    unit = watch(opened, tuple(at or RATES))
    columns = "concept, method, site, stage, step, metric, value, low, high, n, note, coords"
    found = opened.query(
        f"select {columns} from records r where unit = {text(unit)} and exists (select 1 from records b "
        "where b.metric = 'best_site' and b.concept = r.concept and b.site = r.site) "
        "order by concept, method, metric, stage, step"
    )
    if as_json:
        rows = json.loads(found.drop(columns="coords").to_json(orient="records"))
        coords = [dict(coords) for coords in found.coords]
        typer.echo(json.dumps([row | {"coords": c} for row, c in zip(rows, coords, strict=True)], indent=2))
        return
    _say(found)
    typer.echo(f"\nrows are in {run}; next: ontogeny show {run} monitor")


def _across(run: "Run", names: list[str], as_json: bool) -> None:
    """One line for each pair: trained on, tried on."""
    from dataclasses import replace

    from ontogeny.cli.trace import _concept
    from ontogeny.lab.across import across
    from ontogeny.position import Position
    from ontogeny.run import text

    concepts = [_concept(name, None, None, 0, False) for name in names]
    positions = {concept["name"]: concept["position"] for concept in run.about["concepts"]}
    told = [replace(c, position=Position.parse(positions.get(c.name, str(c.position)))) for c in concepts]
    unit = across(run, told)
    found = run.query(
        "select coords['trained_on'] as trained_on, concept as tried_on, method, site, stage, step, value, low, high, n "
        f"from records where unit = {text(unit)} order by method, trained_on, tried_on"
    )
    if as_json:
        typer.echo(found.to_json(orient="records", indent=2))
        return
    for row in found.to_dict("records"):
        sure = f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        typer.echo(f"{row['method']}, {row['trained_on']} → {row['tried_on']} at {row['site']}: AUROC {sure}")


def _say(found: "pd.DataFrame") -> None:
    """One line for what is caught at the last checkpoint, one for each frozen threshold; what cannot be told, with its reason."""
    caught = found[found.metric.str.startswith("tpr_at")]
    for (concept, method, metric), rows in caught.groupby(["concept", "method", "metric"], sort=False):
        last = rows.iloc[-1]
        rate = str(metric).removeprefix("tpr_at_").removesuffix("_fpr")
        begin = f"{concept}, {method} at {last.site}, {rate} % false positives:"
        if last.n == 0:
            typer.echo(f"{begin} not measured: {last.note}")
            continue
        sure = f"{last.value:.2f} [{last.low:.2f}, {last.high:.2f}]"
        negatives = dict(last.coords)["negatives"]
        typer.echo(f"{begin} {sure} caught at {last.stage} {_step(last.step)} ({negatives} negatives)")
    frozen = found[found.metric.isin(["realised_fpr", "realised_tpr"]) & (found.n > 0)]
    for (concept, method, at), rows in frozen.groupby(
        ["concept", "method", frozen.coords.map(lambda c: dict(c)["at"])]
    ):
        typer.echo(
            f"\n{concept}, {method}: threshold for {100 * float(str(at)):g} % false alarms, frozen → used: false alarms, caught"
        )
        for (stage, _), here in rows.groupby(["stage", "step"], sort=False, dropna=False):
            for source, one in here.groupby(
                here.coords.map(lambda c: (dict(c)["source_stage"], dict(c)["source_step"]))
            ):
                rates = one.set_index("metric").value
                moved = f"{source[0]} {source[1]} → {stage} {_step(here.step.iloc[0])}"
                typer.echo(f"  {moved}: {rates['realised_fpr']:.3f}, {rates['realised_tpr']:.2f}")


def _step(step: float) -> str:
    return "end" if step != step else f"{step:.0f}"
