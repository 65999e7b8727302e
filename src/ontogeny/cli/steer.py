"""`ontogeny steer`: generate text with and without a steering direction."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import print_output
from ontogeny.errors import BadInput, unknown_name

if TYPE_CHECKING:
    from ontogeny.direction import Direction
    from ontogeny.steering.samples import SteeringSample


_ACTIONS = ("add", "ablate")


def steer_command(
    model: Annotated[
        str, typer.Argument(help="Folder, Hub repository or lineage.toml; of --steps, the last checkpoint is steered.")
    ],
    direction: Annotated[
        str, arg.steering("A .safetensors file, RUN:CONCEPT of a trace, or hub:REPOSITORY.", "--direction", "-d")
    ],
    prompt: Annotated[list[str] | None, arg.texts("Prompt to continue; repeat for more.", "--prompt", "-p")] = None,
    prompts: Annotated[Path | None, arg.texts("Text file with one prompt per line.")] = None,
    template: arg.TemplateOption = "none",
    site: arg.SiteName = None,
    probe: Annotated[str, arg.steering("Probe of the run whose direction is used.")] = "mass_mean",
    alpha: arg.Alpha = "1",
    scale: Annotated[
        str, arg.steering("Length of the direction: unit, std or gap (as its probe measured them). Default: unchanged.")
    ] = "",
    action: Annotated[str, arg.steering("add the direction, or ablate it at every layer.")] = "add",
    where: Annotated[
        str, arg.steering("Tokens to edit: all, prompt, generated or last. Default: all, to steer the whole text.")
    ] = "all",
    controls: arg.Controls = 1,
    tokens: arg.NewTokens = 40,
    temperature: Annotated[float, arg.steering("Sampling temperature; 0 is greedy.")] = 0.0,
    samples: Annotated[int, arg.steering("Continuations per prompt; more than one needs a temperature.", min=1)] = 1,
    steps: arg.Steps = "last",
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    dtype: arg.DataType = "float32",
    tokenizer: arg.Tokenizer = None,
    allow_pickle: arg.AllowPickle = False,
    as_json: arg.AsJson = False,
) -> None:
    """Steer a model with a direction: unsteered, steered and control continuations side by side."""
    alphas = arg.parse_numbers(alpha, "--alpha")
    given = [*(prompt or []), *(arg.read_text_lines(prompts) if prompts else [])]
    if not given:
        raise BadInput('there is no prompt to continue: add --prompt "Once upon a time".')
    if action not in _ACTIONS:
        raise unknown_name("action", action, _ACTIONS)
    arg.check_choices("set of tokens", [where])
    arg.check_choices("scale rule", [scale] if scale else [])
    _check_direction(direction, site)
    if action == "ablate" and alphas != [1.0]:
        raise BadInput("--alpha must be 1 for --action ablate, which removes the direction: leave --alpha out.")

    from ontogeny.data.templates import parse_template, template_name, template_text
    from ontogeny.steering.generate import DecodingConfig

    inside = parse_template(template)
    decoding = DecodingConfig(tokens, temperature=temperature, samples=samples, seed=seed)
    vector = arg.direction_from_argument(direction, site, probe)
    vector = vector.scaled(scale) if scale else vector

    import torch

    from ontogeny.interventions import Add
    from ontogeny.lineage import Lineage, fetch_checkpoint
    from ontogeny.models.model import load_model
    from ontogeny.steering.samples import conditions, steering_samples
    from ontogeny.steering.steer import Edit, ablate_everywhere, check_direction
    from ontogeny.steering.token_selection import check_token_selection

    selection = check_token_selection(where)
    arg.check_compute(device, dtype)
    checkpoint = Lineage.open(model, allow_pickle=allow_pickle).select(steps).checkpoints[-1]
    loaded = load_model(
        fetch_checkpoint(checkpoint, allow_pickle=allow_pickle),
        device=device,
        dtype=getattr(torch, dtype),
        tokenizer=tokenizer,
        allow_pickle=allow_pickle,
    )
    check_direction(loaded, vector)
    if action == "add":
        compared = list(conditions(Edit(vector.site, Add(vector), selection), alphas, controls=controls))
    else:
        edits = [Edit(edit.site, edit.what, selection) for edit in ablate_everywhere(loaded, vector)]
        nulls = [(f"control {i}", None, [edit.null(i) for edit in edits]) for i in range(controls)]
        compared = [("unsteered", None, []), ("ablated", None, edits), *nulls]
    template_text(loaded.tokenizer, inside)  # fails without one
    generated = steering_samples(loaded, given, compared, decoding, template=inside)
    if not as_json:
        _print_samples(generated, vector, checkpoint.label)
        return
    data = {
        "model": model,
        "checkpoint": checkpoint.name,
        "stage": checkpoint.stage,
        "direction": vector.origin,
        "site": str(vector.site),
    }
    data |= {"towards": vector.sign, "template": template_name(loaded.tokenizer, inside)}
    # NaN is not valid JSON.
    rows = [{k: None if v != v else v for k, v in asdict(sample).items()} for sample in generated]
    print_output({**data, "samples": rows}, [], as_json=True)


def _check_direction(direction: str, site: str | None) -> None:
    """Check the run and the concept of RUN:CONCEPT, and the name of the site, before torch is loaded."""
    from ontogeny.sites import Site
    from ontogeny.storage.run import Run

    if site is not None:
        Site.parse(site)
    if ":" in direction and not direction.startswith("hub:") and not direction.endswith(".safetensors"):
        folder, concept = direction.rsplit(":", 1)
        known = [str(entry["name"]) for entry in Run.open(folder).about["concepts"]]
        if concept not in known:
            raise unknown_name("traced concept", concept, known)
    elif direction.endswith(".safetensors") and not Path(direction).is_file():
        raise BadInput(f"there is no file {direction}: write one with save_direction, or name a run and a concept.")


def _print_samples(samples: "list[SteeringSample]", direction: "Direction", checkpoint: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    towards = f", towards {direction.sign}" if direction.sign else ""
    length = float(direction.vector.norm())
    console.print(
        Text(f"{checkpoint}, steered with {direction.origin} at {direction.site}, length {length:.3g}{towards}", "bold")
    )
    for prompt in dict.fromkeys(sample.prompt for sample in samples):
        table = Table("", "alpha", "continuation", "nats/token", box=None, padding=(0, 2, 0, 0))
        for sample in (sample for sample in samples if sample.prompt == prompt):
            surprise = "–" if sample.surprise != sample.surprise else f"{sample.surprise:.2f}"
            alpha = "" if sample.alpha is None else f"{sample.alpha:g}"
            # Plain text: a bracket in a continuation is not markup.
            table.add_row(Text(sample.arm), alpha, Text(sample.text), surprise)
        console.print()
        console.print(Text(prompt, "bold"))
        console.print(table)
    console.print(Text("\nnats/token: negative log-likelihood of the text under the unsteered model.", "dim"))
