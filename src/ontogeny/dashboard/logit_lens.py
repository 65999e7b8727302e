"""Logit lens of a text that a reader types: the next token that each layer of a checkpoint already holds, at every token."""

from typing import Any

import torch
from torch.nn.functional import one_hot

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.dashboard.checkpoint_models import CheckpointModels
from ontogeny.data.tokenization import encode_text
from ontogeny.errors import BadInput
from ontogeny.lenses import lens_logits
from ontogeny.measurements.token_scores import token_texts
from ontogeny.models.model import Model

_MOST_TOKENS = 128


def lens_of_text(models: CheckpointModels, text: str, stage: str, step: str) -> dict[str, Any]:
    """For each layer, 0 to L, and each token of the text: the most probable next token and its probability.

    Raises:
        BadInput: the text is empty or longer than 128 tokens, or the model is not causal or cannot be read.
    """
    found: dict[str, Any] = models.computed(
        models.at(stage, step), ("logit lens", text), lambda model: _read(model, text)
    )
    return found


@torch.inference_mode()
def _read(model: Model, text: str) -> dict[str, Any]:
    encoding = encode_text(model.tokenizer, text)
    count, most = len(encoding.ids), min(_MOST_TOKENS, model.context)
    if not text.strip() or not 1 <= count <= most:
        raise BadInput(f"`text` must have 1 to {most} tokens for a lens, got {count}: change it.")
    reads = tuple(ActivationRead(0, one_hot(torch.tensor(i), count).float()) for i in range(count))
    work = Workload((tuple(encoding.ids.tolist()),), reads)
    streams = capture_workload(model, work, model.sites("resid")).parts["resid"].to(model.device, model.network.dtype)
    layers = []
    for layer, stream in enumerate(streams):
        best = lens_logits(model, stream, layer).float().softmax(-1).max(-1)
        words = [model.tokenizer.decode([i]) for i in best.indices.tolist()]
        layers.append([[word, round(p, 4)] for word, p in zip(words, best.values.tolist(), strict=True)])
    return {"tokens": list(token_texts(model, encoding)), "layers": layers}
