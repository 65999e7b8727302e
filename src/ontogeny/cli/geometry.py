"""`ontogeny geometry`: the embeddings of models that share a tokenizer, and of the checkpoints of each, compared."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import (
    counted,
    format_bytes,
    interval_text,
    json_rows,
    next_command,
    print_failures,
    print_output,
    visited_line,
)
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.jobs.geometry.plan import GeometryPlan
    from ontogeny.storage.run import Run

_MOST_LINES = 24


def geometry_command(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Models that share a tokenizer: Hub repositories, folders of checkpoints, single models, lineage.toml files."
        ),
    ],
    out: Annotated[Path | None, arg.output("Run directory.", "--out", "-o")] = None,
    steps: arg.Steps = "all",
    texts: Annotated[
        str | None,
        arg.texts(
            "Texts of the training language, for frequencies and hidden states: a text file, table or concept. Default: the order "
            "of merges, and tokens alone."
        ),
    ] = None,
    tokens: Annotated[int, arg.measure("Tokens of which all pairs are compared.")] = 5000,
    local_tokens: Annotated[int, arg.measure("Tokens whose neighbours in the whole vocabulary are sought.")] = 500,
    neighbours: Annotated[int, arg.measure("Neighbours of a locally linear embedding.")] = 10,
    dimension_neighbours: Annotated[
        int, arg.measure("Neighbours of a local dimension; 0: a tenth of the vocabulary, at most 1200.")
    ] = 0,
    hidden_tokens: Annotated[int, arg.measure("Tokens whose hidden states are compared; 0: none.")] = 500,
    least_count: Annotated[int, arg.measure("Leave out tokens that occur less often in the texts.")] = 1,
    nulls: Annotated[int, arg.measure("Draws of each null.")] = 20,
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    dtype: arg.DataType = "float32",
    tokenizer: arg.Tokenizer = None,
    allow_pickle: arg.AllowPickle = False,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Compare the geometry of token embeddings: global, local, intrinsic dimension, hidden states; between models and over checkpoints."""
    from ontogeny.lineage import Lineage

    if out is None and not dry_run:
        raise BadInput("give --out, a folder for the run.")
    lineages = [Lineage.open(name, allow_pickle=allow_pickle).select(steps) for name in models]
    read = arg.neutral_texts(texts)

    from ontogeny.cli._progress import progress_bar
    from ontogeny.embeddings import GeometrySettings
    from ontogeny.jobs.geometry import embedding_geometry, plan_geometry
    from ontogeny.jobs.run_json import command_line
    from ontogeny.models.loading import ModelOptions

    arg.check_compute(device, dtype)
    settings = GeometrySettings(
        tokens=tokens,
        local_tokens=local_tokens,
        neighbours=neighbours,
        dimension_neighbours=dimension_neighbours,
        hidden_tokens=hidden_tokens,
        nulls=nulls,
        least_count=least_count,
        seed=seed,
    )
    options = ModelOptions(device, dtype, tokenizer=tokenizer, allow_pickle=allow_pickle)
    plan = plan_geometry(lineages, read, settings, model=options)
    if dry_run:
        _print_plan(plan, out, as_json=as_json)
        return
    with progress_bar(quiet=quiet or as_json) as watch:
        run = embedding_geometry(plan, out, model=options, command=command_line(), on_progress=watch)
    _print_outcome(run, as_json=as_json)
    if run.about["failures"]:
        if not as_json:
            print_failures("could not be read:", run.about["failures"])
        raise typer.Exit(1)


def _print_plan(plan: "GeometryPlan", out: Path | None, *, as_json: bool) -> None:
    from ontogeny.storage.run import Run

    done = Run(out).done if out is not None and Run(out).exists() else None
    to_read = [visit for visit in plan.visits if done is None or not done(visit.unit)]
    size = sum(plan.sizes[visit.place] for visit in to_read)
    data = {
        "models": list(plan.names),
        "checkpoints": len(plan.visits),
        "to_read": len(to_read),
        "comparisons": plan.comparisons,
        "tokens": len(plan.tokens),
        "frequency": plan.tokens.frequency,
        "bytes_to_read": size,
        "working_bytes": plan.working_bytes,
    }
    pairs = min(plan.settings.tokens, len(plan.tokens))
    lines = [
        *(f"{name}: {visited_line(line)}" for name, line in zip(plan.names, plan.lineages, strict=True)),
        f"{counted(len(to_read), 'checkpoint')} to read ({format_bytes(size)}), {counted(plan.comparisons, 'comparison')} in all",
        f"{counted(len(plan.tokens), 'shared token')}, frequencies: {_FREQUENCIES[plan.tokens.frequency]}; all pairs of {pairs:,}",
        f"memory: about {format_bytes(plan.working_bytes)} beside the loaded model",
    ]
    print_output(data, lines, as_json=as_json)
    if not as_json:
        print_failures("cannot be read:", [vars(failure) for failure in plan.failures])


_FREQUENCIES = {
    "texts": "from the texts",
    "merges": "from the order of merges",
    "none": "not known (give --texts)",
}


def _print_outcome(run: "Run", *, as_json: bool) -> None:
    from ontogeny.findings.shared_geometry import geometry_sentences, last_comparisons

    last, sentences = last_comparisons(run), geometry_sentences(run)
    lines = [_comparison_line(row) for row in last.head(_MOST_LINES).to_dict("records")]
    if len(last) > _MOST_LINES:
        lines.append(f"… and {len(last) - _MOST_LINES} more rows of embedding_similarity")
    data = {"run": str(run.folder), "comparisons": json_rows(last), "sentences": sentences}
    print_output(data, [*lines, *sentences, next_command(run.folder, "show {} geometry")], as_json=as_json)


def _comparison_line(row: dict[Any, Any]) -> str:
    place = f"{row['model']} and {row['other']}, {row['space']}"
    if row["value"] != row["value"]:
        return f"{place}: {row['note']}"
    null = "" if row["matched"] != row["matched"] else f", frequency-matched tokens {row['matched']:.2f}"
    local = "" if row["local"] != row["local"] else f", local {row['local']:.2f}"
    return f"{place}: similarity {interval_text(row)}{null}{local}"
