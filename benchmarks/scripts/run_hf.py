"""Hugging Face alone, three ways: `padded` (the common script), `single` (batch 1, arXiv:2402.19465), `well` (well written)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path = [p for p in sys.path if p != str(Path(__file__).parent)]

import common
import numpy as np
import sklearn.linear_model
import sklearn.preprocessing  # noqa: F401
import torch
import transformers.models.gpt_neox.modeling_gpt_neox  # noqa: F401 - imports do not count
from transformers import AutoModelForCausalLM, logging

BUDGET = 1024


def main():
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    told = common.arguments()
    if told.mode == "well":
        torch.set_float32_matmul_precision("medium")
    clock, accuracies = common.Clock(), None
    for checkpoint in told.checkpoints:
        with clock("load"):
            model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
        with clock("forward"), torch.inference_mode():
            capture = pooled if told.mode == "well" else stacked
            layers, heads = capture(model, told.work["ids"], 1 if told.mode == "single" else 32)
        if not told.only_activations:
            accuracies = common.analyse(clock, layers, heads, told.work["labels"], told.work["train"])
    clock.tell(["torch", "transformers", "scikit-learn"], accuracies=accuracies)


def stacked(model, ids, size):
    """All hidden states of every token, and then the last of each text; heads by hooks on the output projection."""
    layers, heads = [], []
    seen = {}
    handles = [
        block.attention.dense.register_forward_pre_hook(lambda _m, args, i=i: seen.__setitem__(i, args[0]))
        for i, block in enumerate(model.gpt_neox.layers)
    ]
    for tokens, mask, at, last in common.padded(ids, size):
        out = model(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
        layers.append(torch.stack([h[at, last] for h in out.hidden_states]))
        heads.append(torch.stack([seen[i][at, last] for i in sorted(seen)]))
    for handle in handles:
        handle.remove()
    return finish(model, torch.cat(layers, 1), torch.cat(heads, 1))


def pooled(model, ids, _):
    """No lm_head, texts sorted by length, batches of a token budget, the last token taken inside the hooks."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    count, d = model.config.num_hidden_layers, model.config.hidden_size
    layers, heads = torch.empty(count + 1, len(ids), d), torch.empty(count, len(ids), d)
    now = {}

    def block(_m, _a, out, layer):
        layers[layer, now["rows"]] = (out[0] if isinstance(out, tuple) else out)[now["at"], now["last"]]

    def embedded(_m, args, kwargs):
        value = args[0] if args else kwargs["hidden_states"]
        layers[0, now["rows"]] = value[now["at"], now["last"]]

    def attended(_m, args, layer):
        heads[layer, now["rows"]] = args[0][now["at"], now["last"]]

    handles = [model.gpt_neox.layers[0].register_forward_pre_hook(embedded, with_kwargs=True)]
    for i, layer in enumerate(model.gpt_neox.layers):
        handles.append(layer.register_forward_hook(lambda m, a, o, i=i: block(m, a, o, i + 1)))
        handles.append(layer.attention.dense.register_forward_pre_hook(lambda m, a, i=i: attended(m, a, i)))
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and len(ids[order[stop]]) * (stop + 1 - start) <= BUDGET:
            stop += 1
        rows = order[start:stop]
        tokens, mask, at, last = next(common.padded([ids[row] for row in rows], len(rows)))
        now.update(rows=torch.tensor(rows), at=at, last=last)
        model.gpt_neox(input_ids=tokens, attention_mask=mask, use_cache=False)
        start = stop
    for handle in handles:
        handle.remove()
    return finish(model, layers, heads)


def finish(model, layers, heads):
    size = model.config.hidden_size // model.config.num_attention_heads
    split = heads.unflatten(-1, (-1, size)).permute(0, 2, 1, 3).flatten(0, 1)
    return layers.numpy().astype(np.float32), split.contiguous().numpy().astype(np.float32)


if __name__ == "__main__":
    main()
