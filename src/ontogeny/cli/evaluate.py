"""`ontogeny evaluate`: does a vector work? Its effect on held-out questions beside its nulls and its side effects."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.direction import Direction
    from ontogeny.jobs.evaluate.plan import EvaluationPlan
    from ontogeny.jobs.evaluate.text_scorers import TextScorer
    from ontogeny.lineage import Lineage
    from ontogeny.storage.run import Run


def evaluate_command(
    model: Annotated[
        str,
        typer.Argument(help="Folder, Hub repository or lineage.toml; of a lineage, the last checkpoint (see --steps)."),
    ],
    concept: Annotated[
        list[str],
        typer.Option("--concept", "-c", help="Concept file or name, of two classes, with questions or pairs; repeat."),
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            help="tracing_vector, caa, iti, ablate, RUN:CONCEPT or a .safetensors direction; repeat. Default: tracing_vector.",
        ),
    ] = None,
    alphas: Annotated[
        str, typer.Option(help="Times the vector is added; chosen on development questions.")
    ] = "0,0.5,1,2,4",
    k: Annotated[str, typer.Option(help="Numbers of heads that iti tries.")] = "1,2,4,8",
    sites: Annotated[str, typer.Option(help="Where in the stream vectors are tried.")] = "resid",
    where: Annotated[str, typer.Option(help="Tokens that are edited: last, generated, prompt or all.")] = "last",
    controls: Annotated[int, typer.Option(min=1, help="Random directions as long, at every alpha.")] = 200,
    shuffles: Annotated[int, typer.Option(min=0, help="Fits on permuted labels, at every alpha.")] = 100,
    max_kl: Annotated[
        float, typer.Option(help="Nats per token on neutral text that the chosen alpha may cost at most.")
    ] = 0.5,
    equal_kl: Annotated[
        float, typer.Option(help="Nats per token on neutral text at which vectors are compared.")
    ] = 0.1,
    aim: Annotated[
        str, typer.Option(help="What is promoted: the right answer, or the positive class's (right, positive, auto).")
    ] = "auto",
    instruction: Annotated[
        str | None, typer.Option(help="Sentence in front of the prompts, for the prompt-only baseline.")
    ] = None,
    neutral: Annotated[
        str | None, typer.Option(help="Neutral text for the side effects: a .txt (a text a line) or a concept file.")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            help="Side effect: arc_easy, arc_challenge, mmlu, boolq, copa, piqa, winogrande, lambada, or a file of such; repeat.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Questions to choose on, and to report on, at most.")] = 100,
    task_limit: Annotated[int, typer.Option(min=2, help="Questions of a task, at most.")] = 100,
    scorer: Annotated[
        list[str] | None,
        typer.Option(help="Scores what is said: lexicon:WORD,WORD or classifier:CONCEPT_FILE; repeat."),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Test prompts whose continuations are shown.")] = 4,
    tokens: Annotated[int, typer.Option(min=1, help="New tokens of each.")] = 20,
    steps: Annotated[str, typer.Option(help="Checkpoints of a lineage, as in `trace`.")] = "last",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run directory that keeps the rows.")] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the split and the nulls; the test groups are those of a trace.")
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer folder, where the checkpoint has none.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Also read pytorch_model.bin (weights only).")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run; do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print verdicts and rows as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Say whether a vector works: alpha chosen on some groups, the effect told on others, beside nulls and side effects."""
    from ontogeny.cli._arguments import concept_from_argument
    from ontogeny.errors import unknown_name
    from ontogeny.jobs.evaluate.plan import EvaluationSettings, make_plan

    if dtype not in ("float32", "bfloat16", "float16"):
        raise unknown_name("dtype", dtype, ("float32", "bfloat16", "float16"))
    plan = EvaluationSettings(
        alphas=tuple(_numbers(alphas, "--alphas")),
        ks=tuple(int(n) for n in _numbers(k, "--k", whole=True)),
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
    concepts = [concept_from_argument(name, seed=seed) for name in concept]
    texts, questions = _texts(neutral), _tasks(tasks or [])
    asks = [make_plan(one, methods, plan, neutral=texts, tasks=questions) for one in concepts]
    scorers = [_scorer(text, seed) for text in scorer or []]

    from ontogeny.cli._arguments import check_device
    from ontogeny.jobs.evaluate.evaluate import EvaluationRunOptions, evaluate
    from ontogeny.lineage import Lineage

    check_device(device)
    lineage = Lineage.open(model, allow_pickle=allow_pickle).select(steps)
    if dry_run:
        _dry_run(lineage, asks, allow_pickle, as_json)
        return
    import tempfile

    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.run_json import command_line

    with tempfile.TemporaryDirectory() as spare, progress_bar(quiet=quiet or as_json) as watch:
        how = EvaluationRunOptions(
            device, dtype, Path(tokenizer) if tokenizer else None, allow_pickle, command_line(), watch
        )
        run, faults = evaluate(lineage, asks, out or Path(spare) / "run", how, scorers=scorers)
        _print_result(run, out, as_json)
    for fault in faults:
        typer.echo(f"not evaluated: {fault}", err=True)
    if faults:
        raise typer.Exit(1)


def _numbers(text: str, option: str, *, whole: bool = False) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = [math.nan]
    if not found:
        raise BadInput(f"the grid of {option} is empty. Give numbers separated by commas, like {option} 1,2,4.")
    if not all(math.isfinite(one) for one in found) or (whole and any(one != int(one) or one < 1 for one in found)):
        kind = "whole numbers from 1 on" if whole else "finite numbers"
        raise BadInput(f"{option} takes {kind} separated by commas, not {text!r}. Try {option} 1,2,4.")
    return found


def _method(name: str) -> "str | Direction":
    """A method by its name, or a direction that was learned elsewhere."""
    if not name.endswith(".safetensors") and ":" not in name:
        from ontogeny.jobs.evaluate.steering_vectors import check_method

        return check_method(name)
    from ontogeny.cli._arguments import direction_from_argument

    return direction_from_argument(name, None, "mass_mean")


def _texts(name: str | None) -> list[str]:
    if name is None:
        return []
    if name.endswith(".txt"):
        path = Path(name)
        if not path.is_file():
            raise BadInput(f"there is no file {name}. Write one text a line, or name a concept file.")
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not found:
            raise BadInput(f"{name} holds no text. Write one text a line.")
        return found
    from ontogeny.cli._arguments import concept_from_argument

    return list(dict.fromkeys(concept_from_argument(name).texts))


def _tasks(names: list[str]) -> dict[str, Any]:
    from ontogeny.tasks.datasets import read_multiple_choice

    return {Path(name).name.split(".")[0]: read_multiple_choice(name) for name in names}


def _scorer(text: str, seed: int) -> "TextScorer":
    from ontogeny.cli._arguments import concept_from_argument
    from ontogeny.errors import unknown_name
    from ontogeny.jobs.evaluate.text_scorers import classifier_scorer, lexicon_scorer

    kind, _, what = text.partition(":")
    if kind == "lexicon":
        return lexicon_scorer(what.split(","))
    if kind == "classifier" and what:
        return classifier_scorer(concept_from_argument(what), seed=seed)
    raise unknown_name("scorer", kind, ("lexicon", "classifier"))


def _dry_run(lineage: "Lineage", asks: "list[EvaluationPlan]", allow_pickle: bool, as_json: bool) -> None:
    """What would be asked, and how many continuations that makes a checkpoint."""
    from ontogeny.jobs.evaluate.evaluate import check_model_configs
    from ontogeny.jobs.evaluate.plan import count_forward_passes
    from ontogeny.lineage import fetch_checkpoint

    last = lineage.checkpoints[-1]
    # Of a model on the Hub nothing is fetched for this, so its layers are not known.
    layers = check_model_configs(asks, fetch_checkpoint(last, allow_pickle=allow_pickle)) if last.is_local else None
    told: list[dict[str, Any]] = [
        {
            "concept": ask.concept.name,
            "methods": [m if isinstance(m, str) else m.origin for m in ask.methods],
            "fit": len(ask.sides.fit),
            "development": len(ask.sides.development),
            "test": len(ask.sides.test),
            "forwards": None if layers is None else count_forward_passes(ask, layers),
        }
        for ask in asks
    ]
    names = [f"{c.stage} {c.name}" for c in lineage.checkpoints]
    if as_json:
        typer.echo(json.dumps({"checkpoints": names, "concepts": told}, indent=2))
        return
    typer.echo(f"{len(names)} checkpoint{'s' * (len(names) != 1)}: {', '.join(names[:6])}{' …' * (len(names) > 6)}")
    for one in told:
        many = "" if one["forwards"] is None else f"; at most {one['forwards']:,} short forward passes a checkpoint"
        typer.echo(
            f"{one['concept']}: {', '.join(one['methods'])}; fitted on {one['fit']} texts, alpha chosen on "
            f"{one['development']} questions, told on {one['test']}{many}"
        )


def _print_result(run: "Run", out: Path | None, as_json: bool) -> None:
    from ontogeny.findings.steering_verdicts import steering_verdicts
    from ontogeny.findings.timeline import order_like_run

    verdicts = order_like_run(run.records("metric = 'steering_works'"), run.about)
    sentences = [sentence for one in steering_verdicts(verdicts) for sentence in one.said]
    if as_json:
        found = run.query(
            "select concept, stage, step, method, site, metric, control, split, value, low, high, n, note, coords from records "
            "where starts_with(unit, 'evaluation-') or starts_with(unit, 'verdicts-')"
        )
        rows = json.loads(found.drop(columns="coords").to_json(orient="records"))
        coords = [dict(one) for one in found["coords"]]
        rows = [row | {"coords": one} for row, one in zip(rows, coords, strict=True)]
        cost = [entry for entry in run.ledger() if "evaluated" in entry]
        told = {"verdicts": sentences, "forwards": sum(entry["passes"] for entry in cost), "rows": rows}
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for sentence in sentences:
        typer.echo(sentence)
    if out is not None:
        typer.echo(f"\nrows are in {out}; next: ontogeny show {out} dose_response")
