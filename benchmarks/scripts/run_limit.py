"""Lower bound of a job's cost: only the body's matrix products on the real tokens, packed for oneDNN.

The last block's query, output projection and MLP count for the read token alone. Source: every figure of the job is a sum of these.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path = [p for p in sys.path if p != str(Path(__file__).parent)]

import common
import torch

BUDGET = 1024


def main():
    torch.set_num_threads(1)
    told = common.arguments()
    config = json.loads((told.checkpoints[0] / "config.json").read_text())
    tokens, texts = sum(map(len, told.work["ids"])), len(told.work["ids"])
    once = products(config["hidden_size"], config["num_hidden_layers"], tokens, texts)
    once()
    clock = common.Clock()
    passes = max(8, round(len(told.checkpoints) * tokens / BUDGET))
    with clock("products"), torch.inference_mode():
        for _ in range(passes):
            once()
    seconds = clock.stages["products"] * len(told.checkpoints) * tokens / (passes * BUDGET)
    flop = len(told.checkpoints) * texts * work(config["hidden_size"], config["num_hidden_layers"], tokens / texts)
    clock.tell(["torch"], limit=seconds, gflops=flop / seconds / 1e9)


def work(d, layers, length):
    """Floating-point operations of one text."""
    return 2 * d * d * (12 * (layers - 1) * length + 2 * length + 10)


def products(d, layers, tokens, texts):
    mkldnn = torch.ops.mkldnn

    def pack(out, inside):
        return mkldnn._reorder_linear_weight(torch.randn(out, inside) / inside**0.5, BUDGET // 2)

    def product(x, weight):
        return mkldnn._linear_pointwise(x, weight, None, "none", [], "")

    maps = [(pack(3 * d, d), pack(d, d), pack(4 * d, d), pack(d, 4 * d)) for _ in range(layers)]
    keys, query = pack(2 * d, d), pack(d, d)
    x, wide = torch.randn(BUDGET, d), torch.randn(BUDGET, 4 * d)
    few = max(1, round(texts * BUDGET / tokens))

    def once():
        for qkv, out, up, down in maps[:-1]:
            product(x, qkv), product(x, out), product(x, up), product(wide, down)
        _, out, up, down = maps[-1]
        (
            product(x, keys),
            product(x[:few], query),
            product(x[:few], out),
            product(x[:few], up),
            product(wide[:few], down),
        )

    return once


if __name__ == "__main__":
    main()
