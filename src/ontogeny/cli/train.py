"""`ontogeny raise`: a small model is raised, in a generated world stage by stage, or on a text of one's own."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.training.toy_models.in_world import ToyStage
    from ontogeny.training.toy_models.world_checks import Check
    from ontogeny.training.train import TrainingCallback


def train_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the stages, the concepts and the figures.")],
    size: Annotated[str, typer.Option(help="small (7 to 10 minutes on one core), or demo (2 to 3).")] = "small",
    world: Annotated[str, typer.Option(help="Generated world; see `ontogeny list worlds`.")] = "nursery",
    stages: Annotated[str, typer.Option(help="base, sft, dpo; separated by commas.")] = "base,sft,dpo",
    seed: Annotated[int, typer.Option(help="Seed of the weights and of what is said; the world stays the same.")] = 0,
    text: Annotated[
        Path | None, typer.Option(help="Raise a model on this text instead (.txt or .txt.gz): one stage, base.")
    ] = None,
    vocabulary: Annotated[int, typer.Option(help="With --text: tokens of the tokenizer that is trained on it.")] = 2000,
    steps: Annotated[int, typer.Option(min=1, help="With --text: training steps of 8 x 128 tokens.")] = 1000,
    check: Annotated[bool, typer.Option("--check", help="Only measure the model that is there again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained; do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Raise a model and say what it knows and does; started again it goes on, what is finished is skipped."""
    if text is not None:
        if check:
            raise BadInput(
                "--check asks a model for the facts of its world, and a text has none. Leave it or --text out."
            )
        _on_text(out, text, vocabulary, steps, size, seed, dry_run, as_json, quiet)
        return
    from ontogeny.training.toy_models import in_world

    wanted = [name.strip() for name in stages.split(",") if name.strip()]
    if dry_run:
        _print_plan(in_world.size_named(size, wanted, world), wanted, out, as_json)
        return
    if not check:
        import contextlib

        from ontogeny.cli._progress import training_bar

        with contextlib.ExitStack() as bars:

            def begin(stage: str, how: "ToyStage") -> "TrainingCallback | None":
                if not (quiet or as_json):
                    typer.echo(f"{stage}: {how.training.steps:,} steps")
                return bars.enter_context(training_bar(quiet=quiet or as_json))

            in_world.train_toy_model(out, size, world=world, stages=wanted, seed=seed, on_stage=begin)
    from ontogeny.training.toy_models.world_checks import check_toy_model as measure

    print_world_checks(out, measure(out), as_json=as_json)


def print_world_checks(out: Path, figures: "tuple[Check, ...]", *, as_json: bool) -> None:
    """The figures, and exit code 1 where a goal was missed."""
    if as_json:
        lineage = str(out / "lineage.toml")
        typer.echo(json.dumps({"lineage": lineage, "figures": [asdict(figure) for figure in figures]}, indent=2))
    else:
        for figure in figures:
            goal = "" if figure.goal is None else f"   goal {figure.goal:.0%}{', missed' if figure.missed else ''}"
            typer.echo(f"{figure.stage:5} {figure.name:28} {figure.value:7.1%} of {figure.n:3}{goal}")
        typer.echo(
            f"next: ontogeny trace {out / 'lineage.toml'} -c {out / 'concepts' / 'forbidden.jsonl'} --out {out / 'trace'}"
        )
    if any(figure.missed for figure in figures):
        raise typer.Exit(1)


def _print_plan(plan: Any, stages: list[str], out: Path, as_json: bool) -> None:
    from ontogeny.training.toy_models.in_world import finished_stages

    done = finished_stages(out, plan)
    rows = [
        {
            "stage": name,
            "steps": how.training.steps,
            "rows": how.rows,
            "learning_rate": how.training.learning_rate,
            "checkpoints": len(how.saved),
            "done": name in done,
        }
        for name, how in plan.stages.items()
        if name in stages
    ]
    if as_json:
        typer.echo(json.dumps({"out": str(out), "layers": plan.layers, "width": plan.width, "stages": rows}, indent=2))
        return
    typer.echo(f"a GPT-NeoX of {plan.layers} layers x {plan.width}, in {out}")
    for row in rows:
        state = ", done" if row["done"] else ""
        typer.echo(
            f"{row['stage']:5} {row['steps']:,} steps of {row['rows']} rows at {row['learning_rate']:g}, "
            f"{row['checkpoints']} checkpoints{state}"
        )


def _on_text(
    out: Path,
    text: Path,
    vocabulary: int,
    steps: int,
    size: str,
    seed: int,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from ontogeny.cli._progress import training_bar
    from ontogeny.training.toy_models.on_text import TextConfig, prepare_text, train_on_text

    config = TextConfig(text, vocabulary, steps, size, seed=seed)
    if dry_run:
        found = prepare_text(config)
        told = {"training tokens": len(found.seen), "held-out tokens": len(found.heldout), "steps": steps}
        typer.echo(json.dumps(told) if as_json else "\n".join(f"{name:16} {value:,}" for name, value in told.items()))
        return
    with training_bar(quiet=quiet or as_json) as watch:
        figures = train_on_text(out, config, on_progress=watch)
    if as_json:
        typer.echo(json.dumps({"lineage": str(out / "lineage.toml"), **asdict(figures)}, indent=2))
        return
    typer.echo(
        f"held-out loss {figures.heldout_loss:.3f} nats a token ({figures.bits_per_byte:.2f} bits a byte) on {figures.tokens:,} tokens; "
        f"trained on {figures.text_tokens:,}, vocabulary {figures.vocabulary:,}"
    )
    typer.echo(f"next: ontogeny trace {out / 'lineage.toml'} -c CONCEPT --out {out / 'trace'}")
