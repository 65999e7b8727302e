"""`ontogeny attribute`: which stage made a behaviour, without training again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import format_bytes, json_rows, next_command, print_output
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    import pandas

    from ontogeny.attribution.plan import AttributionPlan, BehaviourRequest
    from ontogeny.storage.run import Run


def attribute_command(
    lineage: arg.LineageArgument,
    behaviour: Annotated[
        list[str],
        arg.measure(
            "loss:TEXTS, entropy:TEXTS, margin:CONCEPT, refusal:CONCEPT or direction:CONCEPT[@SITE]; repeat for more.",
            "--behaviour",
            "-b",
        ),
    ],
    out: Annotated[Path, arg.output("Run directory; finished behaviours are not computed again.", "--out", "-o")],
    stage_data: Annotated[
        list[str] | None,
        arg.measure(
            "Texts that a stage was trained on, as STAGE=FILE, for the estimates that need them; repeat.",
            "--stage-data",
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        arg.measure(
            "A lineage trained without a stage's data, as STAGE=LINEAGE: the truth beside the estimates; repeat.",
            "--without",
        ),
    ] = None,
    steps: arg.Steps = "all",
    limit: arg.Limit = None,
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    tokenizer: arg.Tokenizer = None,
    allow_pickle: arg.AllowPickle = False,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Attribute a behaviour to stages: how would it be without a stage's updates? Estimates from checkpoints, with intervals and costs."""
    from ontogeny.attribution.attribute import attribute
    from ontogeny.attribution.plan import AttributionSettings, all_tiers, plan_attribution
    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.run_json import command_line
    from ontogeny.lineage import Lineage
    from ontogeny.models.loading import ModelOptions

    requests = [_request(text, limit, seed) for text in behaviour]
    arg.check_compute(device)
    checkpoints = Lineage.open(lineage, allow_pickle=allow_pickle).select(steps)
    settings = AttributionSettings(seed=seed)
    texts = {name: _texts(path, limit) for name, path in _pairs(stage_data, "`stage_data`", "STAGE=FILE").items()}
    twins = {
        name: Lineage.open(source, allow_pickle=allow_pickle)
        for name, source in _pairs(without, "`without`", "STAGE=LINEAGE").items()
    }
    plan = plan_attribution(
        checkpoints, requests, settings, allow_pickle=allow_pickle, stage_texts=texts, without=twins
    )
    if dry_run:
        data = {
            "stages": [stage.name for stage in plan.path],
            "off_path": list(plan.off_path),
            "undefined": {stage.name: why for stage, why in zip(plan.path, plan.breaks, strict=True) if why},
            "checkpoints": len(plan.checkpoints),
            "evaluations_per_behaviour": plan.evaluations,
            "tiers": [
                {
                    "behaviour": request.name,
                    "name": cost.tier,
                    "meaning": all_tiers()[cost.tier],
                    "tokens": cost.passes,
                    "share_of_retraining": cost.share if cost.retraining > 0 else None,
                }
                for request in plan.requests
                for cost in plan.costs(request)
            ],
        }
        print_output(data, _plan_lines(plan), as_json=as_json)
        return
    if not quiet and not as_json:
        for line in _cost_lines(plan):
            typer.echo(line, err=True)
    with progress_bar(quiet=quiet or as_json) as show:
        run = attribute(
            checkpoints,
            requests,
            out,
            settings,
            model=ModelOptions(device, tokenizer=tokenizer, allow_pickle=allow_pickle),
            stage_texts=texts,
            without=twins,
            command=command_line(),
            on_progress=show,
        )
    _print_effects(run, plan, as_json)


def _request(text: str, limit: int | None, seed: int) -> "BehaviourRequest":
    from ontogeny.attribution.behaviours import split_behaviour
    from ontogeny.attribution.plan import BehaviourRequest

    kind, source = split_behaviour(text)
    name, at, site = source.rpartition("@") if kind == "direction" and "@" in source else (source, "", "")
    texts = arg.plain_texts(name, limit) if kind in ("loss", "entropy") else None
    concept = texts or arg.concept_from_argument(name, limit=limit, seed=seed)
    return BehaviourRequest(f"{kind}:{concept.name}{at}{site}", concept)


def _pairs(given: list[str] | None, argument: str, form: str) -> dict[str, str]:
    pairs = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise BadInput(f"{argument} must be {form}, got {text!r}: name the stage first.")
        pairs[name] = value
    return pairs


def _texts(path: str, limit: int | None) -> list[str]:
    return arg.neutral_texts(path)[:limit]


def _plan_lines(plan: "AttributionPlan") -> list[str]:
    from ontogeny.attribution.plan import all_tiers

    size = sum(size for size, _ in plan.checkpoints.values())
    lines = [
        f"stages       {' → '.join(stage.name for stage in plan.path)}",
        f"checkpoints  {len(plan.checkpoints)}, {format_bytes(size)} to read",
        f"cost         {plan.evaluations} evaluations of each behaviour over its examples, and one gradient; no training",
    ]
    lines += [f"off the path {name}: it does not lead to {plan.path[-1].name}" for name in plan.off_path]
    lines += [f"undefined    {stage.name}: {why}" for stage, why in zip(plan.path, plan.breaks, strict=True) if why]
    lines += _cost_lines(plan)
    meanings = all_tiers()
    return [*lines, *(f"{cost.tier}: {meanings[cost.tier]}" for cost in plan.costs(plan.requests[0]))]


def _cost_lines(plan: "AttributionPlan") -> list[str]:
    """The cost of every tier, as a share of retraining without each stage once."""
    lines = []
    for request in plan.requests:
        costs = plan.costs(request)
        if all(cost.retraining > 0 for cost in costs):
            listed = ", ".join(f"{cost.tier} {_share(cost.share)}" for cost in costs)
            lines.append(f"{request.name} costs, of retraining without each stage once: {listed}")
        else:
            listed = ", ".join(f"{cost.tier} {cost.passes:,.0f}" for cost in costs)
            lines.append(
                f"{request.name} costs, in tokens that pass forwards (about): {listed}; as a share of retraining unknown: "
                "neither the lineage nor trainer_state.json has the stages' tokens"
            )
    return lines


def _share(share: float) -> str:
    return "0" if share == 0 else f"{share:.1g}" if share < 0.1 else f"{share:.2f}"


def _print_effects(run: "Run", plan: "AttributionPlan", as_json: bool) -> None:
    rows = run.records("metric in ('stage_effect', 'stage_score')")
    coords = [dict(c) for c in rows["coords"]]
    shares = {(r.name, cost.tier): cost.share for r in plan.requests for cost in plan.costs(r)}
    rows = rows.assign(
        behaviour=[c["behaviour"] for c in coords],
        question=[c.get("question", "") for c in coords],
        cost_share=[shares.get((c["behaviour"], m), float("nan")) for c, m in zip(coords, rows["method"], strict=True)],
    )
    lines = []
    for name, own in rows.groupby("behaviour", sort=False):
        lines += [f"{name!s}", *_table(own)]
    note = (
        "Estimates of the question: how would the behaviour differ had the stage's updates been skipped? Scores without a unit rank stages "
        "only. A row retraining answers another question: the data replaced, the steps kept."
    )
    print_output(json_rows(rows), [*lines, note, next_command(run.folder, "show {} attribution")], as_json=as_json)


def _table(rows: "pandas.DataFrame") -> list[str]:
    """A line per tier: its effect on each stage with the interval, and its cost as a share of retraining."""
    stages = list(dict.fromkeys(rows["stage"]))
    cells = [["estimate", *map(str, stages), "cost"]]
    reasons: dict[str, str] = {}
    for method in dict.fromkeys(rows["method"]):
        own = rows[rows["method"].eq(method)].set_index("stage")
        line = [str(method)]
        for stage in stages:
            if stage not in own.index or own.loc[stage, "value"] != own.loc[stage, "value"]:
                line.append("–")
                if stage in own.index:
                    reasons.setdefault(str(own.loc[stage, "note"]), f"{stage}, {method}")
                continue
            value, low, high = (float(own.loc[stage, column]) for column in ("value", "low", "high"))
            line.append(f"{value:+.3g}" + (f" [{low:.3g}, {high:.3g}]" if low == low else ""))
        share = float(own["cost_share"].iloc[0])
        cells.append([*line, _share(share) if share == share else "?"])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    return [*lines, *(f"  – {where}: {why}" for why, where in reasons.items())]
