"""`ontogeny monitor`: evaluate the probes of a run as monitors at low false-positive rates."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import interval_text, json_rows, next_command, print_output
from ontogeny.errors import BadInput, unknown_name
from ontogeny.records import checkpoint_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd

    from ontogeny.data.concept import Concept
    from ontogeny.models.loading import ModelOptions
    from ontogeny.storage.run import Run

_MOST_LINES = 10
"""Maximum number of lines of a result; a longer one is summarised."""


def monitor_command(
    run: arg.RunArgument,
    fpr: Annotated[
        list[float] | None, arg.measure("False-positive rate; repeat for more. Default: 0.01 and 0.05.")
    ] = None,
    cross_concept: Annotated[
        list[str] | None,
        arg.measure("Mode: apply the probes of these concept files to each other's texts, at the last checkpoint."),
    ] = None,
    concept: Annotated[
        list[str] | None,
        arg.measure(
            "Mode: freeze the probes of these concept files at one stage, apply them at the others. Default: only thresholds are frozen.",
            "--concept",
            "-c",
        ),
    ] = None,
    frozen: Annotated[
        list[str] | None,
        arg.measure("STAGE or STAGE:STEP at which -c freezes probes; repeat. Default: the last of each stage."),
    ] = None,
    save: Annotated[
        Path | None,
        arg.output(
            "Save the probe of a concept with its threshold in this folder; -c then names the concept of the run."
        ),
    ] = None,
    template: Annotated[
        str | None, arg.texts("Template of the texts, as in the trace. Default: that of the trace.")
    ] = None,
    text_column: arg.TextColumn = None,
    label_column: arg.LabelColumn = None,
    positive: arg.Positive = None,
    ignore_column: arg.IgnoreColumn = None,
    device: arg.Device = "cpu",
    tokenizer: arg.Tokenizer = None,
    allow_pickle: arg.AllowPickle = False,
    show_all: Annotated[bool, arg.output("Print every row of a long result.", "--all")] = False,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Evaluate probes as monitors: TPR at a fixed FPR, with thresholds or probes frozen at one stage and used at others."""
    from ontogeny.storage.run import Run

    # First what needs no torch: a typing error is answered at once.
    opened = Run.open(run)
    columns: dict[str, Any] = {
        "text": text_column,
        "label": label_column,
        "positive": positive,
        "ignore": ignore_column or (),
    }
    if save is None:
        _check_files(opened, cross_concept or concept or ())
        arg.check_concept_arguments(cross_concept or concept or (), **columns)
    for place in frozen or ():
        _check_stage(opened, place.partition(":")[0])

    from ontogeny.data.templates import parse_template
    from ontogeny.jobs.monitor.monitor import FALSE_POSITIVE_RATES, check_template_of_run, write_monitor_rows
    from ontogeny.models.loading import ModelOptions
    from ontogeny.storage.record_filter import sql_text

    rates = tuple(fpr or FALSE_POSITIVE_RATES)
    if save is not None:
        if cross_concept or frozen or dry_run:
            raise BadInput(
                "--save makes a monitor of the run as it is: leave --cross-concept, --frozen and --dry-run out."
            )
        _save_monitor(opened, concept or [], rates[:1] if fpr is None else rates, save, as_json)
        return
    if frozen and not concept:
        raise BadInput("--frozen needs the texts, which a run does not keep: add -c FILE for each traced concept.")
    if cross_concept and concept:
        raise BadInput("--cross-concept and -c are two modes: run them one after the other.")
    options = ModelOptions(device, tokenizer=tokenizer, allow_pickle=allow_pickle)
    concepts = [arg.concept_from_argument(name, **columns) for name in cross_concept or concept or ()]
    if template is not None:
        names = [concept.name for concept in concepts] or [str(entry["name"]) for entry in opened.about["concepts"]]
        check_template_of_run(opened, names, parse_template(template))
    if dry_run:
        _print_plan(opened, concepts, frozen or [], bool(cross_concept), as_json)
    elif cross_concept:
        _print_cross_concept(opened, concepts, options, as_json, show_all)
    elif concept:
        _print_frozen_probes(opened, concepts, frozen or [], rates, options, as_json, quiet, show_all)
    else:
        unit = write_monitor_rows(opened, rates)
        rows = opened.query(
            "select concept, method, site, stage, step, metric, value, low, high, n, note, coords from records r "
            f"where unit = {sql_text(unit)} and exists (select 1 from records b "
            "where b.metric = 'best_site' and b.concept = r.concept and b.site = r.site) "
            "order by concept, method, metric, step"
        )
        rows = _in_order(rows, opened.about["lineage"]["stages"])
        whole = [] if as_json else [*_rate_lines(rows), *_threshold_lines(rows)]
        lines = _shortened(whole, lambda: list(_concept_lines(rows)), show_all)
        print_output(json_rows(rows), [*lines, next_command(run, "show {} monitor")], as_json=as_json)


def _shortened(whole: list[str], summary: "Callable[[], list[str]]", show_all: bool) -> list[str]:
    """All lines if they are few or wanted, else a summary of as many, and how to read the rest."""
    if show_all or sum(line.count("\n") + 1 for line in whole) <= _MOST_LINES:
        return whole
    lines, most = summary(), _MOST_LINES - 1
    left = [f"… and {len(lines) - most + 1} more"] if len(lines) > most else []
    return [*lines[: most - len(left)], *left, f"{len(whole)} rows in all: add --all, or --json"]


def _check_stage(run: "Run", name: str) -> None:
    names = [str(stage) for stage in run.about["lineage"]["stages"]]
    if name not in names:
        raise unknown_name("stage", name, names)


def _check_files(run: "Run", names: "Sequence[str]") -> None:
    """Raise `BadInput` for a concept of the run that is named as such: the texts are in the file that it was traced from."""
    from ontogeny.plugins import list_plugins

    known = {str(entry["name"]) for entry in run.about["concepts"]} - set(list_plugins("concepts"))
    if traced := next((name for name in names if name in known), None):
        raise BadInput(f"a run keeps no texts: in place of {traced!r} give the file that this concept was traced from.")


def _save_monitor(run: "Run", named: list[str], rates: tuple[float, ...], folder: Path, as_json: bool) -> None:
    """Save the monitor of one concept, and print where it reads and what it catches."""
    from dataclasses import asdict

    from ontogeny.data.tables import file_stem

    known = [str(entry["name"]) for entry in run.about["concepts"] if entry["kind"] == "binary"]
    names = [name if name in known else file_stem(name) for name in named] or known
    if len(names) != 1:
        raise BadInput(f"--save needs one concept of two classes, got {', '.join(names) or 'none'}: name it with -c.")
    if len(rates) != 1:
        raise BadInput(f"--save needs one false-positive rate, got {len(rates)}: give --fpr once.")
    monitor = run.monitor(names[0], fpr=rates[0])
    monitor.save(folder)
    about = {name: value for name, value in asdict(monitor).items() if name != "weight"}
    lines = [
        monitor.summary,
        f"monitor.safetensors and monitor.json are in {folder}; docs/monitor.md reads them without ontogeny",
    ]
    print_output({"folder": str(folder), **about}, lines, as_json=as_json)


def _print_plan(run: "Run", concepts: "Sequence[Concept]", sources: list[str], cross: bool, as_json: bool) -> None:
    """Print which checkpoints would be read."""
    from ontogeny.jobs.monitor.frozen_probes import checkpoints_for_frozen_probes
    from ontogeny.jobs.trace.reread import checkpoint_in_run

    places: Sequence[tuple[str, str]] = ()
    if cross:
        last = checkpoint_in_run(run)
        places = [(last.stage, last.name)]
    elif concepts:
        places = checkpoints_for_frozen_probes(run, concepts, sources)
    names, texts = [" ".join(place) for place in places], sum(len(concept.examples) for concept in concepts)
    line = f"checkpoints: {len(names)}, texts: {texts} each: {', '.join(names)}"
    if not concepts:
        line = "no checkpoint is read: the run has the scores and labels of its held-out examples"
    print_output({"checkpoints": names, "texts": texts}, [line], as_json=as_json)


def _print_cross_concept(
    run: "Run", concepts: "list[Concept]", options: "ModelOptions", as_json: bool, show_all: bool
) -> None:
    """Print one line per pair of concepts."""
    from ontogeny.jobs.monitor.cross_concept import monitor_cross_concept
    from ontogeny.storage.record_filter import sql_text

    unit = monitor_cross_concept(run, concepts, model=options)
    rows = run.query(
        "select coords['trained_on'] as trained_on, concept as tried_on, method, site, stage, step, value, low, high, n "
        f"from records where unit = {sql_text(unit)} order by method, trained_on, tried_on"
    )
    whole = [
        f"{row.method}, {row.trained_on} → {row.tried_on} at {row.site}: AUROC {interval_text(row)}"
        for _, row in rows.iterrows()
    ]
    place = "" if rows.empty else f" ({checkpoint_label(rows['stage'].iloc[0], rows['step'].iloc[0])})"
    lines = _shortened(whole, lambda: list(_cross_concept_lines(rows, place)), show_all)
    print_output(json_rows(rows), lines, as_json=as_json)


def _cross_concept_lines(rows: "pd.DataFrame", place: str) -> "Iterator[str]":
    """For the probe of each concept: its AUROC on its own texts, and the lowest and highest on those of others."""
    for trained_on, group in rows[rows["method"].eq(rows["method"].iloc[0])].groupby("trained_on", sort=False):
        own, others = (
            group[group["tried_on"].eq(trained_on)],
            group[group["tried_on"].ne(trained_on)].dropna(subset="value"),
        )
        parts = [f"AUROC {interval_text(row)} on its own texts" for _, row in own.iterrows()]
        if len(others):
            ends = others.sort_values("value").iloc[[0, -1]].to_dict("records")
            parts.append(" to ".join(f"{row['value']:.2f} ({row['tried_on']})" for row in ends) + " on those of others")
        yield f"{trained_on}, {group['method'].iloc[0]} at {group['site'].iloc[0]}{place}: {', '.join(parts)}"


def _print_frozen_probes(
    run: "Run",
    concepts: "list[Concept]",
    sources: list[str],
    rates: tuple[float, ...],
    options: "ModelOptions",
    as_json: bool,
    quiet: bool,
    show_all: bool,
) -> None:
    """Print one line per frozen probe and checkpoint at which it was applied."""
    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.monitor.frozen_probes import monitor_frozen_probes
    from ontogeny.storage.record_filter import sql_text

    with progress_bar(quiet=quiet or as_json) as watch:
        units = monitor_frozen_probes(run, concepts, sources, rates=rates, on_progress=watch, model=options)
    found = run.query(
        "select concept, method, site, coords['source_stage'] as source_stage, coords['source_step'] as source_step, "
        "stage, step, metric, coalesce(coords['at'], '') as at, value, low, high, n, note from records "
        f"where unit in ({', '.join(map(sql_text, units))}) order by concept, method, source_stage, source_step, step"
    )
    stages = list(run.about["lineage"]["stages"])
    rows: list[dict[str, Any]] = found.to_dict("records")  # type: ignore[assignment]
    rows.sort(key=lambda r: (r["concept"], r["method"], stages.index(r["source_stage"]), stages.index(r["stage"])))
    places: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        title = f"{row['concept']}, {row['method']} at {row['site']}, frozen at {_source(row)}, used at"
        places.setdefault(title, {}).setdefault(checkpoint_label(row["stage"], row["step"]), []).append(row)
    whole = [
        line
        for title, by_place in places.items()
        for line in (title, *(f"  {place}: {'; '.join(_frozen_probe_parts(rows))}" for place, rows in by_place.items()))
    ]
    lines = _shortened(whole, lambda: list(_lowest_lines(places)), show_all)
    print_output(json_rows(found), [*lines, next_command(run.folder, "show {} monitor")], as_json=as_json)


def _lowest_lines(places: "Mapping[str, Mapping[str, list[dict[str, Any]]]]") -> "Iterator[str]":
    """For each frozen probe, of one kind for each concept, the checkpoint at which it separates least, and what it gives there."""
    import pandas as pd

    from ontogeny.findings.finding import PREFERRED_PROBES, preferred_name

    kinds = pd.DataFrame([next(iter(by_place.values()))[0] for by_place in places.values()])
    kind_of = {name: preferred_name(own["method"], PREFERRED_PROBES) for name, own in kinds.groupby("concept")}
    for title, by_place in places.items():
        first = next(iter(by_place.values()))[0]
        scores = {
            place: row["value"]
            for place, rows in by_place.items()
            for row in rows
            if row["metric"] == "frozen_auroc" and row["n"]
        }
        if scores and first["method"] == kind_of[first["concept"]]:
            lowest = min(scores, key=lambda place: scores[place])
            measured = [part for part in _frozen_probe_parts(by_place[lowest]) if "not measured" not in part]
            yield f"{title.removesuffix(', used at')}, least at {lowest}: {'; '.join(measured)}"


def _frozen_probe_parts(rows: list[dict[str, Any]]) -> "Iterator[str]":
    """AUROC of a frozen probe at one checkpoint, and the rates at its frozen thresholds."""
    by_metric = {(row["metric"], row["at"]): row for row in rows}
    loss = interval_text(by_metric["frozen_minus_fresh", ""])
    yield f"AUROC {interval_text(by_metric['frozen_auroc', ''])}, less that of a fresh probe {loss}"
    for at in sorted({at for _, at in by_metric if at}, key=float):
        alarms, caught = by_metric["frozen_fpr", at], by_metric["frozen_tpr", at]
        measured = f"false alarms {alarms['value']:.3f}, caught {caught['value']:.2f}"
        yield f"at {100 * float(at):g} % {measured if alarms['n'] else 'not measured: ' + alarms['note']}"


def _in_order(rows: "pd.DataFrame", stages: list[str]) -> "pd.DataFrame":
    """The rows with stages in training order; the alphabet would put dpo before sft."""
    place = {name: i for i, name in enumerate(stages)}
    return rows.sort_values("stage", key=lambda names: names.map(place), kind="stable")


def _concept_lines(rows: "pd.DataFrame") -> "Iterator[str]":
    """For the first probe of each concept what it catches at the last checkpoint, and the most false alarms of a frozen threshold."""
    from ontogeny.findings.finding import PREFERRED_PROBES, preferred_name

    for concept, group in rows.groupby("concept", sort=False):
        own = group[group["method"].eq(preferred_name(group["method"], PREFERRED_PROBES))]
        parts: list[str] = []
        caught = own[own["metric"].str.startswith("tpr_at")]
        rates = [str(metric).removeprefix("tpr_at_").removesuffix("_fpr") for metric in caught["metric"]]
        for rate, points in sorted(caught.groupby(rates), key=lambda item: float(str(item[0]))):
            last = points.iloc[-1]
            parts.append(
                f"{rate} %: " + (f"{interval_text(last)} caught" if last["n"] else "too few negatives to measure")
            )
        alarms = own[own["metric"].eq("realised_fpr") & own["n"].gt(0)]
        alarms = alarms.assign(wanted=[float(dict(coords)["at"]) for coords in alarms["coords"]])
        if len(alarms):
            most = alarms.iloc[int((alarms["value"] - alarms["wanted"]).argmax())]
            parts.append(
                f"a threshold for {100 * most['wanted']:g} % frozen at {_source(dict(most['coords']))} gives {100 * most['value']:.0f} % "
                f"false alarms at {checkpoint_label(most['stage'], most['step'])}"
            )
        last = caught.iloc[-1]
        place = checkpoint_label(last["stage"], last["step"])
        yield f"{concept}, {last['method']} at {last['site']}, {place}, false positives of {'; '.join(parts)}"


def _rate_lines(rows: "pd.DataFrame") -> "Iterator[str]":
    """TPR at each FPR at the last checkpoint, or why it was not measured."""
    caught = rows[rows.metric.str.startswith("tpr_at")]
    for (concept, method, metric), group in caught.groupby(["concept", "method", "metric"], sort=False):
        last = group.iloc[-1]
        rate = str(metric).removeprefix("tpr_at_").removesuffix("_fpr")
        title = f"{concept}, {method} at {last.site}, {rate} % false positives:"
        if last.n == 0:
            yield f"{title} not measured: {last.note}"
        else:
            negatives = dict(last.coords)["negatives"]
            yield f"{title} {interval_text(last)} caught at {checkpoint_label(last.stage, last.step)} ({negatives} negatives)"


def _threshold_lines(rows: "pd.DataFrame") -> "Iterator[str]":
    """Rates of each frozen threshold at each checkpoint at which it was used."""
    frozen = rows[rows.metric.isin(["realised_fpr", "realised_tpr"]) & (rows.n > 0)]
    at = frozen.coords.map(lambda coords: dict(coords)["at"])
    for (concept, method, rate), group in frozen.groupby(["concept", "method", at]):
        percent = f"{100 * float(str(rate)):g} % false alarms"
        yield f"\n{concept}, {method}: threshold for {percent}, frozen → used: false alarms, caught"
        used = [checkpoint_label(stage, step) for stage, step in zip(group["stage"], group["step"], strict=True)]
        place = {moment: i for i, moment in enumerate(dict.fromkeys(used))}
        group = group.assign(used=used, frozen=[_source(dict(coords)) for coords in group["coords"]])
        rates = group.pivot_table(index=["used", "frozen"], columns="metric", values="value", sort=False)
        for at_use, source in sorted(rates.index, key=lambda pair: (place[pair[0]], place.get(pair[1], -1))):
            alarms, caught = rates.loc[(at_use, source), ["realised_fpr", "realised_tpr"]]
            yield f"  {source} → {at_use}: {alarms:.3f}, {caught:.2f}"


def _source(coords: dict[str, str]) -> str:
    from ontogeny.findings.transfer_verdicts import source_label

    return source_label(coords)
