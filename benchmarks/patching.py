"""Activation patching of every layer × token of 50 pairs, compared with one patch, one forward pass, and the FLOPs that it needs.

Run: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/patching.py` (about three minutes). Random GPT-NeoX of Pythia's shapes; prompts of 60
shared and 14 own tokens, as four examples and a statement are. The other side is what everyone writes: hooks, one forward pass of the
whole model for each cell of each pair; it runs on few pairs, between ours, and its seconds are taken for each pair. FLOPs are counted
by torch, packed products switched off for the count.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
import workload
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from ontogeny.models import onednn
from ontogeny.models.model import Model, load_model
from ontogeny.models.onednn import packed_linears
from ontogeny.patching.activation_patching import PatchingCost, PatchingPrompts, patch, run_baseline, run_prefix

SHARED, OWN, FIRST, SUBJECT = 60, 14, 3, 3
"""Tokens of the examples and of the statement; where the subject stands in it, and how many tokens it has."""
Prompts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--shapes", default="tiny,70m")
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps([measured(shape, told.pairs, told.rounds) for shape in told.shapes.split(",")], indent=1))


def measured(shape: str, pairs: int, rounds: int) -> dict[str, float | str]:
    work = workload.make(shape, 10, 1)
    folder = work.checkpoints[0]
    model, plain = load_model(folder, tokenizer=work.folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    prompts = drawn(pairs, model.network.config.vocab_size)
    few = max(1, min(3, 2000 // (model.layers * 200)))
    cost = ours(model, prompts)[1]
    found = torch.stack([ours(model, prompts)[0][:, :few, :], one_by_one(plain, model.layers, prompts, few)])
    ratios = []
    for _ in range(rounds):
        mine = seconds(lambda: ours(model, prompts)) / pairs
        theirs = seconds(lambda: one_by_one(plain, model.layers, prompts, few)) / few
        ratios.append(theirs / mine)
    counted, needed = flops(model, prompts)
    return {
        "shape": shape,
        "pairs": pairs,
        "CPU seconds, ours, all pairs": round(mine * pairs, 2),
        "CPU seconds, one patch one forward, a pair": round(theirs, 2),
        "times faster, median": round(statistics.median(ratios), 1),
        "least": round(min(ratios), 1),
        "greatest": round(max(ratios), 1),
        "tokens × blocks computed / needed": round(cost.computed / cost.needed, 4),
        "FLOPs counted / needed": round(counted / needed, 3),
        "largest difference of log odds": float((found[0] - found[1]).abs().max()),
    }


def drawn(pairs: int, vocab: int) -> Prompts:
    """The common start, clean and corrupt statements."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(5, vocab, (SHARED,), generator=generator)
    clean = torch.randint(5, vocab, (1, OWN), generator=generator).repeat(pairs, 1)
    corrupt = clean.clone()
    for rows in (clean, corrupt):
        rows[:, FIRST : FIRST + SUBJECT] = torch.randint(5, vocab, (pairs, SUBJECT), generator=generator)
    return start, clean, corrupt


def ours(model: Model, prompts: Prompts) -> tuple[torch.Tensor, PatchingCost]:
    start, clean, corrupt = prompts
    cost, pairs = PatchingCost(), len(clean)
    right, wrong = torch.full((2 * pairs,), 7), torch.full((2 * pairs,), 8)
    where = torch.zeros(model.layers + 1, pairs, OWN, dtype=torch.bool)
    where[1:, :, FIRST:] = True
    with packed_linears(model.body):
        both = run_baseline(
            model, PatchingPrompts(torch.cat([clean, corrupt]), right, wrong), run_prefix(model, start, cost), cost
        )
        return patch(model, both.half(False), both.half(True).streams, where, cost), cost


@torch.no_grad()
def one_by_one(network: torch.nn.Module, layers: int, prompts: Prompts, few: int) -> torch.Tensor:
    """The common script: cache the clean run, then for each cell hook a block's output and run the whole model."""
    start, clean, corrupt = prompts
    found = torch.zeros(layers + 1, few, OWN)
    for row in range(few):
        theirs = torch.cat([start, clean[row]])[None]
        states = network(theirs, output_hidden_states=True, use_cache=False).hidden_states
        # Their last hidden state is behind the final norm: the stream before it is read by a hook.
        last: list[torch.Tensor] = []
        blocks = network.gpt_neox.layers
        handle = blocks[-1].register_forward_hook(lambda _, __, output, last=last: last.append(output))
        network(theirs, use_cache=False)
        handle.remove()
        ids = torch.cat([start, corrupt[row]])[None]
        logits = network(ids, use_cache=False).logits[0, -1]
        found[:, row] = logits[7] - logits[8]
        for layer in range(1, layers + 1):
            for token in range(FIRST, OWN):
                value = (states[layer] if layer < layers else last[0])[0, SHARED + token]

                def put(_: torch.nn.Module, __: tuple, output: torch.Tensor, at: int = SHARED + token) -> torch.Tensor:
                    output = output.clone()
                    output[0, at] = value  # noqa: B023
                    return output

                handle = blocks[layer - 1].register_forward_hook(put)
                logits = network(ids, use_cache=False).logits[0, -1]
                handle.remove()
                found[layer, row, token] = logits[7] - logits[8]
    return found


def flops(model: Model, prompts: Prompts) -> tuple[int, int]:
    """FLOPs that torch counts for ours, and the FLOPs of the blocks and tokens after each patch."""
    kept, onednn._count_packable = onednn._count_packable, lambda _: False
    model.network.set_attn_implementation("eager")  # torch counts no fused attention on a CPU
    try:
        with FlopCounterMode(display=False) as counter:
            _, cost = ours(model, prompts)
    finally:
        onednn._count_packable = kept
        model.network.set_attn_implementation("sdpa")
    linears = sum(p.numel() for p in model.block(1).parameters() if p.ndim == 2)
    # Scores, and the sum over values; queries of one pass look at as many keys.
    shared = SHARED * model.layers
    keys = shared * SHARED + (cost.needed - shared) * (SHARED + OWN)
    return counter.get_total_flops(), cost.needed * 2 * linears + keys * 4 * model.d


def seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


if __name__ == "__main__":
    main()
