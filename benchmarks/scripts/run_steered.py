"""Steered against unsteered generation in one tool: the same batch, a vector added at one block to all tokens, interleaved rounds.

Runs in the tool's own environment; prints the CPU seconds of each round. What is said is compared across tools by its token ids.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import torch

LAYER = 3


def main():
    sys.path = [p for p in sys.path if p != str(Path(__file__).parent)]
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("tool", choices=sorted(TOOLS))
    parser.add_argument("folder", type=Path, help="a checkpoint; the tokenizer is in the folder above")
    parser.add_argument("ids", type=Path, help="JSON: token ids")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    rows = [row[:20] for row in json.loads(told.ids.read_text())["ids"] if len(row) >= 20][: told.rows]
    plain, steered = TOOLS[told.tool](told.folder, rows, told.tokens)
    plain(), steered()
    seconds = {"plain": [], "steered": []}
    said = {}
    for _ in range(told.rounds):
        for name, run in (("plain", plain), ("steered", steered)):
            began = time.process_time()
            with torch.no_grad():
                out = run()
            seconds[name].append(time.process_time() - began)
            said[name] = [list(map(int, row)) for row in out]
    digests = {name: hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:12] for name, ids in said.items()}
    lengths = {name: sum(map(len, ids)) for name, ids in said.items()}
    print("RESULT " + json.dumps({"seconds": seconds, "said": digests, "tokens": lengths}), flush=True)


def vector(width):
    return 4.0 * torch.randn(width, generator=torch.Generator().manual_seed(0))


def network_of(folder):
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    network.generation_config.eos_token_id = None
    network.generation_config.pad_token_id = 0
    return network


def tokenizer_of(folder):
    return folder.parent


def fixed(tokens):
    return {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}


def ours_last(folder, rows, tokens):
    return ours(folder, rows, tokens, "last")


def ours(folder, rows, tokens, where="all"):
    from ontogeny.interventions import Add
    from ontogeny.models.model import load_model
    from ontogeny.steering.generate import DecodingConfig, generate

    model = load_model(folder, tokenizer=tokenizer_of(folder))
    model.network.generation_config.eos_token_id = None
    prompts = [" ".join(f"w{i}" for i in row) for row in rows]
    edits = [(f"resid.{LAYER}", Add(vector(model.d)), where)]

    def run(given):
        return [
            one[0].ids.tolist() for one in generate(model, prompts, given, DecodingConfig(tokens, batch=len(prompts)))
        ]

    return lambda: run(()), lambda: run(edits)


def hook(folder, rows, tokens):
    network, ids = network_of(folder), torch.tensor(rows)
    v = vector(network.config.hidden_size)

    def add(_, __, out):
        return (out[0] + v, *out[1:]) if isinstance(out, tuple) else out + v

    def plain():
        return network.generate(ids, attention_mask=torch.ones_like(ids), **fixed(tokens))[:, ids.shape[1] :]

    def steered():
        handle = network.gpt_neox.layers[LAYER - 1].register_forward_hook(add)
        try:
            return plain()
        finally:
            handle.remove()

    return plain, steered


def steering_vectors(folder, rows, tokens):
    from steering_vectors import SteeringVector

    network, ids = network_of(folder), torch.tensor(rows)
    made = SteeringVector({LAYER - 1: vector(network.config.hidden_size)}, "decoder_block")

    def plain():
        return network.generate(ids, attention_mask=torch.ones_like(ids), **fixed(tokens))[:, ids.shape[1] :]

    def steered():
        with made.apply(network):
            return plain()

    return plain, steered


def pyvene(folder, rows, tokens):
    import pyvene as pv

    network, ids = network_of(folder), torch.tensor(rows)
    v = vector(network.config.hidden_size)

    class Shift(torch.nn.Module):
        is_source_constant = True
        keep_last_dim = True

        def forward(self, base, source=None, subspaces=None, **_):
            return base + v

    model = pv.IntervenableModel(
        [{"component": f"gpt_neox.layers[{LAYER - 1}].output", "intervention": Shift()}], model=network
    )

    def plain():
        return network.generate(ids, attention_mask=torch.ones_like(ids), **fixed(tokens))[:, ids.shape[1] :]

    def steered():
        told = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        _, out = model.generate(told, intervene_on_prompt=True, **fixed(tokens))
        return out[:, ids.shape[1] :]

    return plain, steered


def nnsight(folder, rows, tokens):
    from nnsight import LanguageModel
    from transformers import AutoTokenizer

    network, ids = network_of(folder), torch.tensor(rows)
    v = vector(network.config.hidden_size)
    model = LanguageModel(network, tokenizer=AutoTokenizer.from_pretrained(tokenizer_of(folder)))
    told = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def plain():
        with model.generate(told, **fixed(tokens)) as tracer:
            out = tracer.result.save()
        return out[:, ids.shape[1] :]

    def steered():
        with model.generate(told, **fixed(tokens)) as tracer:
            for _ in tracer.iter[:tokens]:
                layer = model.gpt_neox.layers[LAYER - 1]
                layer.output = layer.output + v
            out = tracer.result.save()
        return out[:, ids.shape[1] :]

    return plain, steered


TOOLS = {
    "ours": ours,
    "ours_last": ours_last,
    "hook": hook,
    "steering_vectors": steering_vectors,
    "pyvene": pyvene,
    "nnsight": nnsight,
}

if __name__ == "__main__":
    main()
