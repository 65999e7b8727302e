"""`ontogeny steer`: what a direction does to what a model says."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.cli._arguments import direction_from_argument
from ontogeny.errors import BadInput, unknown_name

if TYPE_CHECKING:
    from ontogeny.direction import Direction
    from ontogeny.steering.samples import SteeringSample


_ACTIONS = ("add", "ablate")


def steer_command(
    model: Annotated[
        str, typer.Argument(help="Folder or Hub repository; of a lineage, the last checkpoint (see --steps).")
    ],
    direction: Annotated[
        str,
        typer.Option(
            "--direction", "-d", help="A .safetensors direction, RUN:CONCEPT of a traced run, or hub:REPOSITORY."
        ),
    ],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What is continued; repeat for more.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="A text file with one prompt a line.")] = None,
    alpha: Annotated[
        str, typer.Option(help="How many times the direction is added; several separated by commas.")
    ] = "1",
    scale: Annotated[
        str,
        typer.Option(help="Length of the direction: as it is (empty), unit, std or gap (as its fit measured them)."),
    ] = "",
    action: Annotated[str, typer.Option(help="add, or ablate: take the direction out of the whole stream.")] = "add",
    where: Annotated[str, typer.Option(help="Tokens that are edited: all, prompt, generated or last.")] = "all",
    site: Annotated[
        str | None, typer.Option(help="Site of the direction in the run; default: the concept's best site.")
    ] = None,
    method: Annotated[str, typer.Option(help="Fit of the run that the direction comes from.")] = "mass_mean",
    steps: Annotated[
        str, typer.Option(help="Which checkpoint of a lineage is steered; the last of those named.")
    ] = "last",
    controls: Annotated[
        int, typer.Option(min=0, help="Random edits that move as far, beside each steered sample.")
    ] = 1,
    tokens: Annotated[int, typer.Option(min=1, help="New tokens, at most.")] = 40,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    samples: Annotated[int, typer.Option(min=1, help="Continuations of each prompt; needs a temperature.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer folder, where the checkpoint has none.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Also read pytorch_model.bin (weights only).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the samples as JSON.")] = False,
) -> None:
    """Steer a model with a direction: samples side by side, unsteered, steered, and a random edit as large."""
    alphas = _alphas(alpha)
    asked = _prompts(prompt or [], prompts)
    if action not in _ACTIONS:
        raise unknown_name("action", action, _ACTIONS)
    if action == "ablate" and alphas != [1.0]:
        raise BadInput(
            "an ablation has no alpha: it takes the direction out as a whole. Leave out --alpha, or use --action add."
        )

    from ontogeny.steering.generate import DecodingConfig

    how = DecodingConfig(tokens, temperature=temperature, samples=samples, seed=seed)
    chosen = direction_from_argument(direction, site, method)
    chosen = chosen.scaled(scale) if scale else chosen

    import torch

    from ontogeny.cli._arguments import check_device
    from ontogeny.interventions import Add
    from ontogeny.lineage import Lineage, fetch_checkpoint
    from ontogeny.models.model import load_model
    from ontogeny.steering.samples import conditions, steering_samples
    from ontogeny.steering.steer import Edit, ablate_everywhere, check_direction
    from ontogeny.steering.token_selection import check_token_selection

    words = check_token_selection(where)
    check_device(device)
    if dtype not in ("float32", "bfloat16", "float16"):
        raise unknown_name("dtype", dtype, ("float32", "bfloat16", "float16"))
    checkpoint = Lineage.open(model, allow_pickle=allow_pickle).select(steps).checkpoints[-1]
    loaded = load_model(
        fetch_checkpoint(checkpoint, allow_pickle=allow_pickle),
        device=device,
        dtype=getattr(torch, dtype),
        tokenizer=Path(tokenizer) if tokenizer else None,
        allow_pickle=allow_pickle,
    )
    check_direction(loaded, chosen)
    if action == "add":
        compared = list(conditions(Edit(chosen.site, Add(chosen), words), alphas, controls=controls))
    else:
        edits = [Edit(edit.site, edit.what, words) for edit in ablate_everywhere(loaded, chosen)]
        others = [[edit.null(seed) for edit in edits] for seed in range(controls)]
        compared = [
            ("unsteered", None, []),
            ("ablated", None, edits),
            *((f"control {i}", None, o) for i, o in enumerate(others)),
        ]
    found = steering_samples(loaded, asked, compared, how)
    if as_json:
        told = {"model": model, "checkpoint": checkpoint.name, "direction": chosen.origin, "site": str(chosen.site)}
        typer.echo(json.dumps({**told, "samples": [_plain(asdict(s)) for s in found]}, indent=2, ensure_ascii=False))
        return
    _print_samples(found, chosen)


def _plain(sample: dict[str, object]) -> dict[str, object]:
    """NaN is no JSON."""
    return {name: None if value != value else value for name, value in sample.items()}


def _alphas(text: str) -> list[float]:
    import math

    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise BadInput(f"--alpha takes numbers separated by commas, not {text!r}. Try --alpha 1,2,4.") from None
    if not found or not all(math.isfinite(one) for one in found):
        raise BadInput(f"--alpha takes finite numbers, not {text!r}. Try --alpha 1,2,4.")
    return found


def _prompts(given: list[str], file: Path | None) -> list[str]:
    if file is not None and not file.is_file():
        raise BadInput(f"there is no file {file}. Write one prompt a line, or use --prompt.")
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file else []
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not UTF-8 text (byte {error.start + 1}). Save it as UTF-8.") from None
    found = [*given, *(line for line in lines if line.strip())]
    if not found:
        raise BadInput('nothing to continue. Give a prompt: --prompt "Once upon a time".')
    return found


def _print_samples(samples: "list[SteeringSample]", direction: "Direction") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(Text(f"{direction.origin} at {direction.site}, length {float(direction.vector.norm()):.3g}", "bold"))
    for prompt in dict.fromkeys(sample.prompt for sample in samples):
        table = Table("", "alpha", "continuation", "nats/token", box=None, padding=(0, 2, 0, 0))
        for one in (sample for sample in samples if sample.prompt == prompt):
            shown = "–" if one.surprise != one.surprise else f"{one.surprise:.2f}"
            # Plain text: a bracket in a continuation is no markup.
            table.add_row(Text(one.arm), "" if one.alpha is None else f"{one.alpha:g}", Text(one.text), shown)
        console.print()
        console.print(Text(prompt, "bold"))
        console.print(table)
    console.print(Text("\nnats/token: how unlikely the text is under the unsteered model.", "dim"))
