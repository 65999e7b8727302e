"""`ontogeny attribute`: which stage made a behaviour, without training again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import format_bytes, json_rows, next_command, print_output

if TYPE_CHECKING:
    from ontogeny.attribution.attribute import AttributionPlan, BehaviourRequest
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
    """Attribute a behaviour to stages: how would it be without a stage's updates? Five estimates from checkpoints, with intervals."""
    from dataclasses import asdict

    from ontogeny.attribution.attribute import AttributionSettings, attribute, plan_attribution
    from ontogeny.attribution.checkpoint_tiers import CHECKPOINT_TIERS
    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.run_json import command_line
    from ontogeny.lineage import Lineage
    from ontogeny.models.loading import ModelOptions

    requests = [_request(text, limit, seed) for text in behaviour]
    arg.check_compute(device)
    checkpoints = Lineage.open(lineage, allow_pickle=allow_pickle).select(steps)
    settings = AttributionSettings(seed=seed)
    if dry_run:
        plan = plan_attribution(checkpoints, requests, settings, allow_pickle=allow_pickle)
        data = {
            "stages": [stage.name for stage in plan.path],
            "off_path": list(plan.off_path),
            "checkpoints": len(plan.checkpoints),
            "evaluations_per_behaviour": plan.evaluations,
            "tiers": [asdict(tier) for tier in CHECKPOINT_TIERS],
        }
        print_output(data, _plan_lines(plan), as_json=as_json)
        return
    with progress_bar(quiet=quiet or as_json) as show:
        run = attribute(
            checkpoints,
            requests,
            out,
            settings,
            model=ModelOptions(device, tokenizer=tokenizer, allow_pickle=allow_pickle),
            command=command_line(),
            on_progress=show,
        )
    _print_effects(run, as_json)


def _request(text: str, limit: int | None, seed: int) -> "BehaviourRequest":
    from ontogeny.attribution.attribute import BehaviourRequest
    from ontogeny.attribution.behaviours import split_behaviour

    kind, source = split_behaviour(text)
    name, at, site = source.rpartition("@") if kind == "direction" and "@" in source else (source, "", "")
    concept = arg.concept_from_argument(name, limit=limit, seed=seed)
    return BehaviourRequest(f"{kind}:{concept.name}{at}{site}", concept)


def _plan_lines(plan: "AttributionPlan") -> list[str]:
    from ontogeny.attribution.checkpoint_tiers import CHECKPOINT_TIERS

    size = sum(size for size, _ in plan.checkpoints.values())
    lines = [
        f"stages       {' → '.join(stage.name for stage in plan.path)}",
        f"checkpoints  {len(plan.checkpoints)}, {format_bytes(size)} to read",
        f"cost         {plan.evaluations} evaluations of each behaviour over its examples, and one gradient; no training",
    ]
    lines += [f"off the path {name}: it does not lead to {plan.path[-1].name}" for name in plan.off_path]
    return [*lines, *(f"{tier.name:12} {tier.meaning}" for tier in CHECKPOINT_TIERS)]


def _print_effects(run: "Run", as_json: bool) -> None:
    rows = run.records("metric = 'stage_effect'")
    rows = rows.assign(behaviour=[dict(coords)["behaviour"] for coords in rows["coords"]])
    lines = []
    for (name, stage), own in rows.groupby(["behaviour", "stage"], sort=False):
        # Telescoping equals endpoint, checkpoint by checkpoint.
        known = own[own["value"].notna() & own["method"].ne("telescoping")].to_dict("records")
        parts = [
            f"{row['method']} {row['value']:+.3g}"
            + (f" [{row['low']:.3g}, {row['high']:.3g}]" if row["low"] == row["low"] else "")
            for row in known
        ]
        reason = next((str(note) for note in own["note"].dropna()), "")
        lines.append(f"{name!s}, {stage!s}: " + ("; ".join(parts) or reason))
    note = "Estimates of the question: how would the behaviour differ had the stage's updates been skipped? No estimate is a retraining."
    print_output(json_rows(rows), [*lines, note, next_command(run.folder, "show {} attribution")], as_json=as_json)
