"""`ontogeny monitor`: what the probes of a run catch at low false-positive rates, and where a frozen threshold or probe holds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from ontogeny.data.concept import Concept
    from ontogeny.storage.run import Run


def monitor_command(
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
    concept: Annotated[
        list[str] | None,
        typer.Option(
            "--concept",
            "-c",
            help="Concept file, as it was traced; repeat: freeze its probes, not only their thresholds.",
        ),
    ] = None,
    frozen: Annotated[
        list[str] | None,
        typer.Option(
            "--frozen",
            help="STAGE or STAGE:STEP at which the probes of -c are frozen; repeat for more. Default: the last of each stage.",
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of the texts, where it is not text or statement.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of the labels, where it is not label or target, or the file has both.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Tokenizer folder, where the checkpoints have none.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Also read pytorch_model.bin (weights only).")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which checkpoints would be read; do nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows at the best sites as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Say what probes catch at a false-positive rate, and what a threshold or a probe frozen at one stage does at the others."""
    from ontogeny.cli._arguments import concept_from_argument
    from ontogeny.jobs.monitor.monitor import FALSE_POSITIVE_RATES
    from ontogeny.jobs.monitor.monitor import monitor as watch
    from ontogeny.storage.run import Run
    from ontogeny.storage.run import sql_text as quoted

    opened = Run.open(run)
    if frozen and not concept:
        raise BadInput(
            "a probe is tried on texts, and a run keeps none. Name the concept files it was traced with: -c FILE."
        )
    if across and concept:
        raise BadInput("--across and -c are two questions. Ask them one after the other.")
    how: dict[str, Any] = {"tokenizer": tokenizer, "device": device, "allow_pickle": allow_pickle}
    named = [concept_from_argument(name, text=text, label=label) for name in across or concept or ()]
    if dry_run:
        typer.echo(_plan(opened, named, frozen or [], bool(across)))
        return
    if across:
        _across(opened, named, how, as_json)
        return
    if concept:
        _frozen(opened, named, frozen or [], tuple(at or FALSE_POSITIVE_RATES), how, as_json, quiet)
        return
    unit = watch(opened, tuple(at or FALSE_POSITIVE_RATES))
    shown = "concept, method, site, stage, step, metric, value, low, high, n, note, coords"
    found = opened.query(
        f"select {shown} from records r where unit = {quoted(unit)} and exists (select 1 from records b "
        "where b.metric = 'best_site' and b.concept = r.concept and b.site = r.site) "
        "order by concept, method, metric, step"
    )
    found = _in_order(found, opened.about["lineage"]["stages"])
    if as_json:
        rows = json.loads(found.drop(columns="coords").to_json(orient="records"))
        coords = [dict(coords) for coords in found.coords]
        typer.echo(json.dumps([row | {"coords": c} for row, c in zip(rows, coords, strict=True)], indent=2))
        return
    _print_result(found)
    typer.echo(f"\nrows are in {run}; next: ontogeny show {run} monitor")


def _across(run: "Run", concepts: "list[Concept]", how: "dict[str, Any]", as_json: bool) -> None:
    """One line for each pair: trained on, tried on."""
    from ontogeny.jobs.monitor.cross_concept import monitor_cross_concept
    from ontogeny.storage.run import sql_text

    unit = monitor_cross_concept(run, concepts, **how)
    found = run.query(
        "select coords['trained_on'] as trained_on, concept as tried_on, method, site, stage, step, value, low, high, n "
        f"from records where unit = {sql_text(unit)} order by method, trained_on, tried_on"
    )
    if as_json:
        typer.echo(found.to_json(orient="records", indent=2))
        return
    for row in found.to_dict("records"):
        told = {str(name): value for name, value in row.items()}
        typer.echo(
            f"{row['method']}, {row['trained_on']} → {row['tried_on']} at {row['site']}: AUROC {_interval_text(told)}"
        )


def _frozen(
    run: "Run",
    concepts: "list[Concept]",
    sources: list[str],
    rates: tuple[float, ...],
    how: "dict[str, Any]",
    as_json: bool,
    quiet: bool,
) -> None:
    """One line for each place where a frozen probe was tried: what it still tells, and what its threshold does."""
    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.monitor.frozen_probes import monitor_frozen_probes
    from ontogeny.storage.run import sql_text

    with progress_bar(quiet=quiet or as_json) as watch:
        units = monitor_frozen_probes(run, concepts, sources, rates=rates, on_progress=watch, **how)
    found = run.query(
        "select concept, method, site, coords['source_stage'] as source_stage, coords['source_step'] as source_step, "
        "stage, step, metric, coalesce(coords['at'], '') as at, value, low, high, n, note from records "
        f"where unit in ({', '.join(map(sql_text, units))}) order by concept, method, source_stage, source_step, step"
    )
    if as_json:
        typer.echo(found.to_json(orient="records", indent=2))
        return
    stages = list(run.about["lineage"]["stages"])
    rows = [{str(name): value for name, value in row.items()} for row in found.to_dict("records")]
    rows.sort(
        key=lambda row: (row["concept"], row["method"], stages.index(row["source_stage"]), stages.index(row["stage"]))
    )
    said: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        where = f"{row['source_stage']} {row['source_step'].replace('None', 'end')}"
        begin = f"{row['concept']}, {row['method']} at {row['site']}, frozen at {where}"
        said.setdefault(begin, {}).setdefault(f"{row['stage']} {_step(row['step'])}", []).append(row)
    for begin, places in said.items():
        typer.echo(f"{begin}, used at")
        for place, told in places.items():
            typer.echo(f"  {place}: {'; '.join(_describe_frozen_probe(told))}")
    typer.echo(f"\nrows are in {run.folder}; next: ontogeny show {run.folder} monitor")


def _plan(run: "Run", concepts: "list[Concept]", sources: list[str], across: bool) -> str:
    """Which checkpoints would be read."""
    from ontogeny.jobs.monitor.frozen_probes import checkpoints_for_frozen_probes
    from ontogeny.jobs.trace.reread import checkpoint_in_run

    if not concepts:
        return "no checkpoint is read: the run keeps the scores and labels of its held-out examples"
    last = checkpoint_in_run(run)
    places = [(last.stage, last.name)] if across else checkpoints_for_frozen_probes(run, concepts, sources)
    texts = sum(len(concept.examples) for concept in concepts)
    return f"checkpoints: {len(places)}, texts: {texts} each: {', '.join(' '.join(place) for place in places)}"


def _describe_frozen_probe(rows: list[dict[str, Any]]) -> "Iterator[str]":
    """What a frozen probe still tells at one place, and what its threshold does at each rate."""
    of = {(row["metric"], row["at"]): row for row in rows}
    yield f"AUROC {_interval_text(of['frozen_auroc', ''])}, less that of a fresh probe {_interval_text(of['frozen_minus_fresh', ''])}"
    for at in sorted({at for _, at in of if at}, key=float):
        alarms, caught = of["frozen_fpr", at], of["frozen_tpr", at]
        measured = f"false alarms {alarms['value']:.3f}, caught {caught['value']:.2f}"
        yield f"at {100 * float(at):g} % {measured if alarms['n'] else 'not measured: ' + alarms['note']}"


def _interval_text(row: "Mapping[str, Any] | pd.Series") -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _in_order(found: "pd.DataFrame", stages: list[str]) -> "pd.DataFrame":
    """The rows stage by stage as they were trained: in the order of the alphabet dpo would come before sft."""
    place = {name: i for i, name in enumerate(stages)}
    return found.sort_values("stage", key=lambda names: names.map(place), kind="stable")


def _print_result(found: "pd.DataFrame") -> None:
    """One line for what is caught at the last checkpoint, one for each frozen threshold; what cannot be told, with its reason."""
    caught = found[found.metric.str.startswith("tpr_at")]
    for (concept, method, metric), rows in caught.groupby(["concept", "method", "metric"], sort=False):
        last = rows.iloc[-1]
        rate = str(metric).removeprefix("tpr_at_").removesuffix("_fpr")
        begin = f"{concept}, {method} at {last.site}, {rate} % false positives:"
        if last.n == 0:
            typer.echo(f"{begin} not measured: {last.note}")
            continue
        negatives = dict(last.coords)["negatives"]
        typer.echo(f"{begin} {_interval_text(last)} caught at {last.stage} {_step(last.step)} ({negatives} negatives)")
    frozen = found[found.metric.isin(["realised_fpr", "realised_tpr"]) & (found.n > 0)]
    for (concept, method, at), rows in frozen.groupby(
        ["concept", "method", frozen.coords.map(lambda c: dict(c)["at"])]
    ):
        typer.echo(
            f"\n{concept}, {method}: threshold for {100 * float(str(at)):g} % false alarms, frozen → used: false alarms, caught"
        )
        used = [f"{stage} {_step(step)}" for stage, step in zip(rows["stage"], rows["step"], strict=True)]
        place = {moment: i for i, moment in enumerate(dict.fromkeys(used))}
        rows = rows.assign(used=used, frozen=[_source(dict(coords)) for coords in rows["coords"]])
        rates = rows.pivot_table(index=["used", "frozen"], columns="metric", values="value", sort=False)
        for at_use, source in sorted(rates.index, key=lambda pair: (place[pair[0]], place.get(pair[1], -1))):
            alarms, told = rates.loc[(at_use, source), ["realised_fpr", "realised_tpr"]]
            typer.echo(f"  {source} → {at_use}: {alarms:.3f}, {told:.2f}")


def _source(coords: dict[str, str]) -> str:
    return f"{coords['source_stage']} {coords['source_step'].replace('None', 'end')}"


def _step(step: float | None) -> str:
    return "end" if step is None or step != step else f"{step:.0f}"
