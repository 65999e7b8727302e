"""Do the run's own texts give the same numbers however they are computed? Measured once a run, on a sample, told in run.json.

Each text alone, plainly through the network, is the measure; held against it: what `capture` reads from batches, padding on
either side, keys and values kept from the beginning of the text, and the CPU where the run is elsewhere.
"""

import copy
import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture
from ontogeny.models.hooks import read_hooks
from ontogeny.models.loading import first_error_line
from ontogeny.models.model import Model
from ontogeny.models.onednn import packed_linears
from ontogeny.storage.run import Run

PARITY_TEXTS = 4
SAMPLE_DIVISOR, MIN_SAMPLE_TOKENS, MAX_SAMPLE_TOKENS = 1000, 24, 256
"""Of each text, its beginning: a thousandth of the run's tokens within these bounds, for the certificate should cost little."""
_PARITY_LIMITS = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""What sums in another order may leave, relative to the largest number of a layer."""
MAX_COPY_BYTES = 4 * 10**9
"""Bytes of weights beyond which the model is not run on the CPU beside."""

LayerStates = list[Float[Tensor, "layer token d"]]
"""For each text, the stream after some blocks."""


@dataclass(frozen=True)
class ParityDifference:
    """One way to compute the same, and how far it is from each text alone."""

    way: str
    value: float | None
    """Largest difference, relative to the largest number of that layer in that text; None where it was not measured."""
    holds: bool
    """Whether it is within the limit; also where it could not be asked."""
    reason: str = ""
    """Why it was not measured."""


ParityMeasure = Callable[[], Float[Tensor, ""] | str]


def certify_parity(run: Run, model: Model, checkpoint: str, sequences: Sequence[Sequence[int]]) -> None:
    """Measure and write it into run.json, unless the run has a certificate."""
    if not run.about.get("parity"):
        run.describe(run.about | {"parity": {"checkpoint": checkpoint, **parity_certificate(model, sequences)}})


def parity_of_run(run: Run) -> dict[str, Any]:
    """The certificate that a run has, as a part of its run.json; None in it before there is one."""
    return {"parity": run.about.get("parity") if run.about_path.is_file() else None}


@torch.inference_mode()
def parity_certificate(model: Model, sequences: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How far each way to compute a sample of these token sequences is from each of them alone, and what is allowed."""
    texts = sample_sequences(sequences)
    layers = sorted({1, (model.layers + 1) // 2, model.layers})
    alone = [_states(model, layers, [text])[0] for text in texts]
    causal = model.architecture.causal
    ways: dict[str, ParityMeasure] = {
        "batched": lambda: _batched(model, layers, texts, alone),
        "padded_right": lambda: _relative_difference(_padded(model, layers, texts, left=False), alone),
        "padded_left": lambda: _relative_difference(_padded(model, layers, texts, left=True), alone),
        "cached": lambda: (
            _relative_difference([_cached(model, layers, text) for text in texts], alone)
            if causal
            else "each token sees all others, so nothing can be kept"
        ),
        "device": lambda: _on_cpu(model, layers, texts, alone),
    }
    limit = _PARITY_LIMITS.get(model.network.dtype, _PARITY_LIMITS[torch.float32])
    # Packed as the run itself is; each text alone went plainly.
    with packed_linears(model.body):
        measured = [_difference(way, measure, limit) for way, measure in ways.items()]
    told = {
        "texts": len(texts),
        "tokens": sum(map(len, texts)),
        "layers": layers,
        "dtype": str(model.network.dtype).removeprefix("torch."),
        "device": model.device.type,
        "limit": limit,
        "holds": all(d.holds for d in measured),
        "differences": [asdict(d) for d in measured],
        "architecture": {
            "type": model.network.config.model_type,
            "found_by": "structure" if model.architecture.guessed else "table",
        },
    }
    return told | {"sentence": describe_parity(told)}


def _difference(way: str, measure: ParityMeasure, limit: float) -> ParityDifference:
    try:
        found = measure()
    except (
        AttributeError,
        IndexError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:  # a model without a cache of this kind, say
        return ParityDifference(way, None, True, f"it fails: {first_error_line(error)}")
    if isinstance(found, str):
        return ParityDifference(way, None, True, found)
    value = float(found)
    return (
        ParityDifference(way, value, value <= limit)
        if math.isfinite(value)
        else ParityDifference(way, None, False, "not a number")
    )


def sample_sequences(sequences: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Texts of all lengths, from the shortest to the longest; of long ones the beginning."""
    length = min(max(sum(map(len, sequences)) // SAMPLE_DIVISOR, MIN_SAMPLE_TOKENS), MAX_SAMPLE_TOKENS)
    every = sorted({tuple(ids[:length]) for ids in sequences if len(ids)}, key=lambda ids: (len(ids), ids))
    count = min(PARITY_TEXTS, len(every))
    return [every[round(i * (len(every) - 1) / max(1, count - 1))] for i in range(count)]


def describe_parity(parity: Mapping[str, Any]) -> str:
    """The certificate in one sentence."""
    told = [f"{_PARITY_NAMES[d['way']]} {d['value']:.1e}" for d in parity["differences"] if d["value"] is not None]
    left = [f"{_PARITY_NAMES[d['way']]} ({d['reason']})" for d in parity["differences"] if d["value"] is None]
    verdict = "the same numbers" if parity["holds"] else "NOT the same numbers"
    return (
        f"{parity['texts']} of the run's texts ({parity['tokens']:,} tokens) give {verdict} however they are computed, up to "
        f"{parity['limit']:.0e} of the largest ({parity['dtype']}): {', '.join(told)}"
        + (f"; not measured: {', '.join(left)}." if left else ".")
    )


_PARITY_NAMES = {
    "batched": "in batches",
    "padded_right": "padded on the right",
    "padded_left": "padded on the left",
    "cached": "with a cache",
    "device": "on the CPU",
}


def _states(model: Model, layers: Sequence[int], rows: Sequence[Sequence[int]], **more: Any) -> LayerStates:
    """The stream after these blocks, for rows of one length, on the CPU."""
    seen: dict[int, Tensor] = {}

    def keep(_part: str, layer: int, value: Tensor) -> None:
        seen[layer] = value.float().cpu()

    with read_hooks(model, [("resid", layer) for layer in layers], keep):
        model.body(input_ids=torch.tensor(rows, device=model.device), **({"use_cache": False} | more))
    return list(torch.stack([seen[layer] for layer in layers], 1))


def _relative_difference(ours: LayerStates, alone: LayerStates) -> Float[Tensor, ""]:
    """Largest difference over texts and layers, relative to the largest number of the layer; NaN if anything is."""
    return torch.stack([_largest_difference(a, b) for a, b in zip(ours, alone, strict=True)]).max()


def _largest_difference(
    ours: Float[Tensor, "layer token d"], alone: Float[Tensor, "layer token d"]
) -> Float[Tensor, ""]:
    return ((ours - alone).abs().amax((1, 2)) / alone.abs().amax((1, 2))).max()


def _batched(
    model: Model, layers: Sequence[int], texts: Sequence[tuple[int, ...]], alone: LayerStates
) -> Float[Tensor, ""]:
    """What a trace itself reads: last token and mean, from batches, packed maps and all."""
    sites = model.sites([f"resid.{layer}" for layer in layers])
    kinds = (lambda n: torch.eye(n)[-1], lambda n: torch.full((n,), 1 / n))
    reads = tuple(ActivationRead(i, weigh(len(text))) for weigh in kinds for i, text in enumerate(texts))
    ours = capture(model, Workload(tuple(texts), reads), sites).parts["resid"]
    theirs = [torch.einsum("t,ltd->ld", read.weights, alone[read.sequence]) for read in reads]
    return torch.stack([_largest_difference(ours[:, i, None], own[:, None]) for i, own in enumerate(theirs)]).max()


def _padded(model: Model, layers: Sequence[int], texts: Sequence[tuple[int, ...]], *, left: bool) -> LayerStates:
    width = max(map(len, texts))
    spans = [slice(width - len(text), width) if left else slice(0, len(text)) for text in texts]
    ids, mask = torch.zeros(len(texts), width, dtype=torch.long), torch.zeros(len(texts), width, dtype=torch.long)
    for row, (text, span) in enumerate(zip(texts, spans, strict=True)):
        ids[row, span], mask[row, span] = torch.tensor(text), 1
    more = {"attention_mask": mask.to(model.device)}
    if "position_ids" in inspect.signature(model.body.forward).parameters:
        more["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0).to(model.device)
    states = _states(model, layers, ids.tolist(), **more)
    return [state[:, span] for state, span in zip(states, spans, strict=True)]


def _cached(model: Model, layers: Sequence[int], text: tuple[int, ...]) -> Float[Tensor, "layer token d"]:
    """The beginning of a text, then the rest, then its last token, with the keys and values of what came before."""
    cuts = sorted({0, len(text) // 2, len(text) - 1, len(text)})
    past, pieces = None, []

    def note(_module: Any, _args: Any, output: Any) -> None:
        nonlocal past
        past = output.past_key_values

    handle = model.body.register_forward_hook(note)
    try:
        for start, end in itertools.pairwise(cuts):
            pieces += _states(model, layers, [text[start:end]], use_cache=True, past_key_values=past)
    finally:
        handle.remove()
    return torch.cat(pieces, 1)


def _on_cpu(
    model: Model, layers: Sequence[int], texts: Sequence[tuple[int, ...]], alone: LayerStates
) -> Float[Tensor, ""] | str:
    if model.device.type == "cpu":
        return "the run is on the CPU"
    if sum(p.nbytes for p in model.network.parameters()) > MAX_COPY_BYTES:
        return f"more than {MAX_COPY_BYTES / 1e9:.0f} GB of weights"
    beside = replace(model, network=copy.deepcopy(model.network).to("cpu"))
    return _relative_difference([_states(beside, layers, [text])[0] for text in texts], alone)
