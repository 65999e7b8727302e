"""`ontogeny train`: train a small model, in stages in a generated world or on a text."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import print_output
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ontogeny.training.toy_models.on_text import TextConfig
    from ontogeny.training.toy_models.world_checks import Check


def train_command(
    out: Annotated[Path, arg.output("Folder of the stages, the concepts and the figures.", "--out", "-o")],
    size: Annotated[str, arg.training("small (7 to 10 minutes on one core), or demo (2 to 3).")] = "small",
    world: Annotated[str, arg.training("Generated world; see `ontogeny list worlds`.")] = "nursery",
    stages: Annotated[str, arg.training("Stages, separated by commas: base, sft, dpo.")] = "base,sft,dpo",
    text_file: Annotated[
        Path | None, arg.training("Train on this text instead, in one stage: .txt or .txt.gz.")
    ] = None,
    vocabulary: Annotated[int, arg.training("Vocabulary of the tokenizer that is trained on --text-file.")] = 2000,
    steps: Annotated[int, arg.training("Training steps on --text-file, of 8 x 128 tokens each.", min=1)] = 1000,
    check: Annotated[bool, arg.training("Do not train; only measure the trained model again.", "--check")] = False,
    seed: Annotated[int, arg.training("Seed of the weights and of the sampled texts, not of the world.")] = 0,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Train a small model in a generated world and check what it learned. Resumes if interrupted."""
    names = [name.strip() for name in stages.split(",") if name.strip()]
    arg.check_choices("size", [size])
    arg.check_choices("stage", names)
    if text_file is not None:
        if check:
            raise BadInput("--check measures facts of a generated world, which --text-file has not: leave one out.")
        if not text_file.is_file():
            raise BadInput(f"there is no file {text_file}: give the path of a text file.")
        from ontogeny.training.toy_models.on_text import TextConfig

        _on_text(out, TextConfig(text_file, vocabulary, steps, size, seed=seed), dry_run, as_json, quiet)
        return
    arg.check_plugins("worlds", [world])
    from ontogeny.training.toy_models import in_world

    if dry_run:
        _print_plan(in_world.size_named(size, names, world), names, out, as_json)
        return
    if not check:
        from ontogeny.cli._progress import stage_bars

        with stage_bars(quiet=quiet or as_json) as on_stage:
            in_world.train_toy_model(out, size, world=world, stages=names, seed=seed, on_stage=on_stage)
    from ontogeny.training.toy_models.world_checks import check_toy_model

    print_world_checks(out, check_toy_model(out), as_json=as_json)


def print_world_checks(out: Path, figures: "Sequence[Check]", *, as_json: bool) -> None:
    """Print the figures; exit code 1 if a goal was missed."""
    lines = [
        f"{figure.stage:5} {figure.name:28} {figure.value:7.1%} of {figure.n:3}"
        + ("" if figure.goal is None else f"   goal {figure.goal:.0%}{', missed' if figure.missed else ''}")
        for figure in figures
    ]
    data = {"lineage": str(out / "lineage.toml"), "figures": [asdict(figure) for figure in figures]}
    print_output(data, [*lines, _next_trace(out, str(out / "concepts" / "forbidden.jsonl"))], as_json=as_json)
    if any(figure.missed for figure in figures):
        raise typer.Exit(1)


def _next_trace(out: Path, concept: str) -> str:
    return f"next: ontogeny trace {out / 'lineage.toml'} -c {concept} --out {out / 'trace'}"


def _print_plan(plan: Any, stages: list[str], out: Path, as_json: bool) -> None:
    from ontogeny.training.toy_models.in_world import finished_stages

    done = finished_stages(out, plan)
    rows: list[dict[str, Any]] = [
        {
            "stage": name,
            "steps": stage.training.steps,
            "rows": stage.rows,
            "learning_rate": stage.training.learning_rate,
            "checkpoints": len(stage.saved),
            "done": name in done,
        }
        for name, stage in plan.stages.items()
        if name in stages
    ]
    lines = [
        f"{row['stage']:5} {row['steps']:,} steps of {row['rows']} rows at {row['learning_rate']:g}, "
        f"{row['checkpoints']} checkpoints{', done' if row['done'] else ''}"
        for row in rows
    ]
    data = {"out": str(out), "layers": plan.layers, "width": plan.width, "stages": rows}
    print_output(data, [f"a GPT-NeoX of {plan.layers} layers x {plan.width}, in {out}", *lines], as_json=as_json)


def _on_text(out: Path, config: "TextConfig", dry_run: bool, as_json: bool, quiet: bool) -> None:
    from ontogeny.cli._progress import progress_bar
    from ontogeny.training.toy_models.on_text import prepare_text, train_on_text

    if dry_run:
        text = prepare_text(config)
        sizes = {"training tokens": len(text.seen), "held-out tokens": len(text.heldout), "steps": config.steps}
        print_output(sizes, [f"{name:16} {value:,}" for name, value in sizes.items()], as_json=as_json)
        return
    with progress_bar(quiet=quiet or as_json) as watch:
        figures = train_on_text(out, config, on_progress=watch)
    lines = [
        f"held-out loss {figures.heldout_loss:.3f} nats a token ({figures.bits_per_byte:.2f} bits a byte) on {figures.tokens:,} tokens; "
        f"trained on {figures.text_tokens:,}, vocabulary {figures.vocabulary:,}",
        _next_trace(out, "CONCEPT"),
    ]
    print_output({"lineage": str(out / "lineage.toml"), **asdict(figures)}, lines, as_json=as_json)
