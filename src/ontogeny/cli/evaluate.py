"""`ontogeny evaluate`: test steering vectors on held-out questions, with nulls and side effects."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._command import with_options
from ontogeny.cli._output import (
    controls_line,
    controls_power,
    json_rows,
    next_command,
    print_output,
    visited_line,
)
from ontogeny.errors import unknown_name

if TYPE_CHECKING:
    from ontogeny.direction import Direction
    from ontogeny.jobs.evaluate.plan import EvaluationPlan
    from ontogeny.lineage import Lineage
    from ontogeny.steering.text_scorers import TextScorer
    from ontogeny.storage.run import Run


def evaluate_command(
    model: Annotated[str, typer.Argument(help="Folder, Hub repository or lineage.toml.")],
    concept: arg.ConceptNames,
    method: Annotated[
        list[str] | None,
        arg.steering(
            "Steering method from `ontogeny list methods`, RUN:CONCEPT or a .safetensors direction; repeat for more. "
            "Default: tracing_vector.",
            "--method",
            "-m",
            autocompletion=arg.plugin_completion("steering/methods"),
        ),
    ] = None,
    alpha: arg.Alpha = "0,0.5,1,2,4",
    k: Annotated[str, arg.steering("Numbers of heads that iti tries, separated by commas.")] = "1,2,4,8",
    sites: Annotated[str, arg.steering("Sites of the residual stream at which vectors are tried.")] = "resid",
    where: Annotated[
        str, arg.steering("Tokens to edit: last, generated, prompt or all. Default: last, where answers are scored.")
    ] = "last",
    controls: arg.Controls = 200,
    shuffles: arg.Shuffles = 100,
    max_kl: Annotated[float, arg.steering("Highest KL on neutral text at the chosen alpha, nats per token.")] = 0.5,
    equal_kl: Annotated[float, arg.steering("Compare vectors at this KL on neutral text, nats per token.")] = 0.1,
    aim: Annotated[
        str, arg.measure("Continuation to promote: right (the right answer), positive (of the positive class) or auto.")
    ] = "auto",
    steps: arg.Steps = "last",
    tasks: Annotated[
        list[str] | None,
        arg.measure(
            "Task: arc_easy, arc_challenge, mmlu, boolq, copa, piqa, winogrande, lambada or a file; repeat.", "--task"
        ),
    ] = None,
    task_limit: Annotated[int, arg.measure("Maximum number of questions per task.", min=2)] = 100,
    scorer: Annotated[
        list[str] | None, arg.measure("Scorer of texts: lexicon:WORD,WORD or classifier:CONCEPT_FILE; repeat for more.")
    ] = None,
    samples: Annotated[int, arg.measure("Number of test prompts whose continuations are kept.", min=0)] = 4,
    tokens: arg.NewTokens = 20,
    instruction: Annotated[str | None, arg.texts("Sentence before each prompt in the prompt-only baseline.")] = None,
    neutral: arg.Neutral = None,
    positive: arg.Positive = None,
    ignore_column: arg.IgnoreColumn = None,
    template: arg.TemplateOption = "none",
    limit: Annotated[int, arg.texts("Maximum number of development questions, and of test questions.")] = 100,
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    dtype: arg.DataType = "float32",
    tokenizer: arg.Tokenizer = None,
    allow_pickle: arg.AllowPickle = False,
    out: Annotated[Path | None, arg.output("Run directory. Default: none, rows are not kept.", "--out", "-o")] = None,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Evaluate steering vectors: choose alpha on development groups, report effects and side effects on test groups."""
    from ontogeny.lineage import Lineage
    from ontogeny.models.shape import check_sites_exist

    # First what needs no torch: a typing error is answered at once.
    alphas, ks = arg.parse_numbers(alpha, "--alpha"), arg.parse_numbers(k, "--k", whole=True)
    columns: dict[str, Any] = {"positive": positive, "ignore": ignore_column or ()}
    arg.check_choices("set of tokens", [where])
    arg.check_choices("aim", [aim])
    arg.check_choices("scorer", [text.partition(":")[0] for text in scorer or []])
    arg.check_plugins("steering/methods", [name for name in method or () if not _is_direction(name)])
    arg.check_concept_arguments(concept, **columns)
    lineage = Lineage.open(model, allow_pickle=allow_pickle).select(steps)
    check_sites_exist(lineage.checkpoints[0], sites)

    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.evaluate.evaluate import evaluate
    from ontogeny.jobs.evaluate.plan import EvaluationSettings, plan_evaluation
    from ontogeny.jobs.run_json import command_line
    from ontogeny.models.loading import ModelOptions

    settings = EvaluationSettings(
        alphas=tuple(alphas),
        ks=tuple(map(int, ks)),
        sites=sites,
        where=where,
        controls=controls,
        shuffles=shuffles,
        most=max_kl,
        equal_kl=equal_kl,
        aim=aim,  # type: ignore[arg-type]
        instruction=instruction,
        samples=samples,
        tokens=tokens,
        task_limit=task_limit,
        limit=limit,
        seed=seed,
    )
    methods = [_method(name) for name in method or ["tracing_vector"]]
    concepts = [arg.concept_from_argument(name, seed=seed, template=template, **columns) for name in concept]
    neutral_lines, questions = arg.neutral_texts(neutral), _tasks(tasks or [])
    plans = [plan_evaluation(one, methods, settings, neutral=neutral_lines, tasks=questions) for one in concepts]
    scorers = [_scorer(text, seed) for text in scorer or []]
    arg.check_compute(device, dtype)
    if dry_run:
        _print_plan(lineage, plans, tokenizer, allow_pickle, as_json)
        return
    with tempfile.TemporaryDirectory() as spare, progress_bar(quiet=quiet or as_json) as watch:
        run = evaluate(
            lineage,
            plans,
            out or Path(spare) / "run",
            model=ModelOptions(device, dtype, tokenizer, allow_pickle),
            scorers=scorers,
            command=command_line(),
            on_progress=watch,
        )
        failures = run.failures
        _print_result(run, out, as_json)
    for failure in failures:
        typer.echo(f"not evaluated: {failure.stage} {failure.checkpoint}: {with_options(failure.reason)}", err=True)
    if failures:
        raise typer.Exit(1)


def _is_direction(name: str) -> bool:
    return name.endswith(".safetensors") or ":" in name


def _method(name: str) -> "str | Direction":
    return arg.direction_from_argument(name) if _is_direction(name) else name


def _tasks(names: list[str]) -> dict[str, Any]:
    from ontogeny.tasks.datasets import read_multiple_choice

    return {Path(name).name.split(".")[0]: read_multiple_choice(name) for name in names}


def _scorer(text: str, seed: int) -> "TextScorer":
    from ontogeny.steering.text_scorers import classifier_scorer, lexicon_scorer

    kind, _, argument = text.partition(":")
    if kind == "lexicon":
        return lexicon_scorer(argument.split(","))
    if kind == "classifier" and argument:
        return classifier_scorer(arg.concept_from_argument(argument), seed=seed)
    raise unknown_name("scorer", kind, ("lexicon", "classifier"))


def _print_plan(
    lineage: "Lineage", plans: "Sequence[EvaluationPlan]", tokenizer: Path | None, allow_pickle: bool, as_json: bool
) -> None:
    """Checkpoints, splits and the number of forward passes per checkpoint."""
    from ontogeny.jobs.evaluate.evaluate import check_model_configs
    from ontogeny.jobs.evaluate.plan import count_effects, count_forward_passes
    from ontogeny.jobs.evaluate.siblings import check_equal_networks
    from ontogeny.lineage import fetch_checkpoint
    from ontogeny.lineage.siblings import sibling_stages

    check_equal_networks(lineage, tokenizer)
    last = lineage.checkpoints[-1]
    # A dry run downloads nothing, so the number of layers of a model on the Hub is unknown.
    layers = check_model_configs(plans, fetch_checkpoint(last, allow_pickle=allow_pickle)) if last.is_local else None
    concepts: list[dict[str, Any]] = [
        {
            "concept": plan.concept.name,
            "positive": plan.concept.meaning,
            "methods": [m if isinstance(m, str) else m.origin for m in plan.methods],
            "fit": len(plan.splits.fit),
            "development": len(plan.splits.development),
            "test": len(plan.splits.test),
            "forwards": None
            if layers is None
            else count_forward_passes(plan, layers, has_siblings=last.data_share is not None),
        }
        for plan in plans
    ]
    names = [f"{c.stage} {c.name}" for c in lineage.checkpoints]
    lines = [visited_line(lineage)]
    for row in concepts:
        passes = row["forwards"]
        meaning = f" ({row['positive']})" if row["positive"] else ""
        cost = "" if passes is None else f"; at most {passes:,} short forward passes per checkpoint"
        lines.append(
            f"{row['concept']}{meaning}: {', '.join(row['methods'])}; fitted on {row['fit']} texts, alpha chosen on "
            f"{row['development']} questions, effects measured on {row['test']}{cost}"
        )
    effects, controls = len(names) * sum(map(count_effects, plans)), plans[0].settings.controls
    power = controls_power(effects, controls)
    lines.append(controls_line(power))
    axis = {stage.name: share for share, stage in sibling_stages(lineage.stages)}
    if axis:
        stated = ", ".join(f"{name} {share:g}" for name, share in axis.items())
        lines.append(
            f"data-mix axis of {len(axis)} siblings: {stated}; the effect at equal KL gets its own random directions"
        )
    data = {"checkpoints": names, "concepts": concepts, **power} | ({"data_shares": axis} if axis else {})
    print_output(data, lines, as_json=as_json)


def _print_result(run: "Run", out: Path | None, as_json: bool) -> None:
    from ontogeny.findings.share_trends import share_trend_sentences
    from ontogeny.findings.steering_verdicts import steering_verdicts
    from ontogeny.findings.timeline import order_like_run

    verdicts = order_like_run(run.records("metric = 'steering_works'"), run.about)
    sentences = [sentence for verdict in steering_verdicts(verdicts) for sentence in verdict.sentences]
    trends = share_trend_sentences(run.records("metric = 'share_trend'"))
    data: dict[str, Any] = {}
    if as_json:
        rows = run.query(
            "select concept, stage, step, method, site, metric, control, split, value, low, high, n, note, coords from records "
            "where starts_with(unit, 'evaluation-') or starts_with(unit, 'verdicts-') "
            "or starts_with(unit, 'share-trends-')"
        )
        passes = sum(entry["passes"] for entry in run.ledger() if "evaluated" in entry)
        data = {"verdicts": sentences, "forwards": passes, "rows": json_rows(rows)}
        data |= {"trends": trends} if trends else {}
    view = "data_mix" if trends else "dose_response"
    command = [] if out is None else [next_command(out, f"show {{}} {view}")]
    print_output(data, [*sentences, *trends, *command], as_json=as_json)
