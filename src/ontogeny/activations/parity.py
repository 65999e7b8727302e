"""Parity certificate: do a run's texts give the same numbers however they are computed? Measured once per run, stored in run.json.

The reference is each text alone through the plain network. Compared with it: `capture_workload` in batches, padding on either side, a KV
cache, and the CPU if the run is on another device.
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
from ontogeny.activations.capture import capture_workload
from ontogeny.models.forward import rope_switch
from ontogeny.models.hooks import read_hooks
from ontogeny.models.loading import first_error_line
from ontogeny.models.model import Model
from ontogeny.models.onednn import packed_linears
from ontogeny.storage.run import Run

PARITY_TEXTS = 4
SAMPLE_DIVISOR, MIN_SAMPLE_TOKENS, MAX_SAMPLE_TOKENS = 1000, 24, 256
"""Tokens from the beginning of each text: a thousandth of the run's tokens, within these bounds, to keep the cost low."""
_PARITY_LIMITS = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Allowed difference from another order of summation, relative to the largest number of a layer."""
MAX_COPY_BYTES = 4 * 10**9
"""Larger models are not copied to the CPU."""

LayerStates = list[Float[Tensor, "layer token d"]]
"""For each text, the residual stream after some blocks."""


@dataclass(frozen=True)
class ParityDifference:
    """Difference between one way to compute the numbers and each text alone."""

    way: str
    value: float | None
    """Largest difference, relative to the largest number of that layer in that text; None if not measured."""
    holds: bool
    """Whether it is within the limit; True if not measured."""
    reason: str = ""
    """Why it was not measured."""


ParityMeasure = Callable[[], Float[Tensor, ""] | str]


def certify_parity(
    run: Run, model: Model, checkpoint: str, sequences: Sequence[Sequence[int]], *, visits: Sequence[str] = ()
) -> None:
    """Write the parity certificate into run.json, unless it has one.

    Args:
        visits: Names of the checkpoints that are visited, in their order. The certificate of the first replaces that of a later one, so
            that it does not depend on which visit began first.
    """
    known = (run.about.get("parity") or {}).get("checkpoint")
    if not known or (checkpoint != known and checkpoint in visits[:1] and known in visits):
        run.describe(run.about | {"parity": {"checkpoint": checkpoint, **parity_certificate(model, sequences)}})


@torch.inference_mode()
def parity_certificate(model: Model, sequences: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Parity certificate of a sample of these token sequences: the difference of each way to compute them, and the limit."""
    texts, switch = sample_sequences(sequences), rope_switch(model)
    # The ways below pad and cache texts of all lengths, which differ by the model's own rule across the switch.
    texts = [text for text in texts if switch is None or len(text) <= switch] or texts
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
    # Packed linear layers, as in the run; the reference above ran without.
    with packed_linears(model.body):
        measured = [_difference(way, measure, limit) for way, measure in ways.items()]
    certificate = {
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
            "found_by": "structure" if model.architecture.is_inferred else "table",
        },
    }
    return certificate | {"sentence": describe_parity(certificate)}


def _difference(way: str, measure: ParityMeasure, limit: float) -> ParityDifference:
    try:
        result = measure()
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:  # e.g. no KV cache of this kind
        return ParityDifference(way, None, True, f"it fails: {first_error_line(error)}")
    if isinstance(result, str):
        return ParityDifference(way, None, True, result)
    value = float(result)
    if not math.isfinite(value):
        return ParityDifference(way, None, False, "not a number")
    return ParityDifference(way, value, value <= limit)


def sample_sequences(sequences: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Texts of all lengths, from the shortest to the longest; long ones truncated."""
    length = min(max(sum(map(len, sequences)) // SAMPLE_DIVISOR, MIN_SAMPLE_TOKENS), MAX_SAMPLE_TOKENS)
    every = sorted({tuple(ids[:length]) for ids in sequences if len(ids)}, key=lambda ids: (len(ids), ids))
    count = min(PARITY_TEXTS, len(every))
    return [every[round(i * (len(every) - 1) / max(1, count - 1))] for i in range(count)]


def describe_parity(parity: Mapping[str, Any]) -> str:
    """The certificate in one sentence."""
    differences = [
        f"{_PARITY_NAMES[d['way']]} {d['value']:.1e}" for d in parity["differences"] if d["value"] is not None
    ]
    unmeasured = [f"{_PARITY_NAMES[d['way']]} ({d['reason']})" for d in parity["differences"] if d["value"] is None]
    verdict = "the same numbers" if parity["holds"] else "NOT the same numbers"
    return (
        f"{parity['texts']} of the run's texts ({parity['tokens']:,} tokens) give {verdict} however they are computed, up to "
        f"{parity['limit']:.0e} of the largest ({parity['dtype']}): {', '.join(differences)}"
        + (f"; not measured: {', '.join(unmeasured)}." if unmeasured else ".")
    )


_PARITY_NAMES = {
    "batched": "in batches",
    "padded_right": "padded on the right",
    "padded_left": "padded on the left",
    "cached": "with a cache",
    "device": "on the CPU",
}


def _states(model: Model, layers: Sequence[int], rows: Sequence[Sequence[int]], **more: Any) -> LayerStates:
    """Residual stream after these blocks for rows of one length, on the CPU."""
    states: dict[int, Tensor] = {}

    def keep(_part: str, layer: int, value: Tensor) -> None:
        states[layer] = value.float().cpu()

    with read_hooks(model, [("resid", layer) for layer in layers], keep):
        model.body(input_ids=torch.tensor(rows, device=model.device), **({"use_cache": False} | more))
    return list(torch.stack([states[layer] for layer in layers], 1))


def _relative_difference(states: LayerStates, alone: LayerStates) -> Float[Tensor, ""]:
    """Largest difference over texts and layers, relative to the largest number of the layer; NaN if one is NaN."""
    return torch.stack([_largest_difference(a, b) for a, b in zip(states, alone, strict=True)]).max()


def _largest_difference(
    states: Float[Tensor, "layer token d"], alone: Float[Tensor, "layer token d"]
) -> Float[Tensor, ""]:
    return ((states - alone).abs().amax((1, 2)) / alone.abs().amax((1, 2))).max()


def _batched(
    model: Model, layers: Sequence[int], texts: Sequence[tuple[int, ...]], alone: LayerStates
) -> Float[Tensor, ""]:
    """As in a trace: `capture_workload` of the last token and of the mean, in batches."""
    sites = model.sites([f"resid.{layer}" for layer in layers])
    kinds = (lambda n: torch.eye(n)[-1], lambda n: torch.full((n,), 1 / n))
    reads = tuple(ActivationRead(i, weigh(len(text))) for weigh in kinds for i, text in enumerate(texts))
    captured = capture_workload(model, Workload(tuple(texts), reads), sites).parts["resid"]
    expected = [torch.einsum("t,ltd->ld", read.weights, alone[read.sequence]) for read in reads]
    return torch.stack(
        [_largest_difference(captured[:, i, None], own[:, None]) for i, own in enumerate(expected)]
    ).max()


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
    """A text in three pieces, the last of one token, each with the KV cache of the previous ones."""
    cuts = sorted({0, len(text) // 2, len(text) - 1, len(text)})
    past, pieces = None, []

    def keep_cache(_module: Any, _args: Any, output: Any) -> None:
        nonlocal past
        past = output.past_key_values

    handle = model.body.register_forward_hook(keep_cache)
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
    on_cpu = replace(model, network=copy.deepcopy(model.network).to("cpu"))
    return _relative_difference([_states(on_cpu, layers, [text])[0] for text in texts], alone)
