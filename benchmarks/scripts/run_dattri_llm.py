"""AdamW-influence of dattri-llm (arXiv:2605.18814) over a trajectory that another process recorded: its push, coupling and transition.

Prints the effect on the behaviour of the removed examples of each stage, with the empirical Fisher of the method and with given rows of the
curvature's factor. Runs in the tool's own environment.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from dattri_llm.gradient import ops


def main():
    saved = {name: torch.from_numpy(value) for name, value in np.load(Path(sys.argv[1])).items()}
    results = {}
    for name, rows, scale in (("fisher", "samples", None), ("given curvature", "factors", 1.0)):
        results[name] = sweep(saved, rows, scale)
    print("RESULT " + json.dumps(results), flush=True)


def sweep(saved, rows, scale):
    u_theta = saved["slope"][None].float()
    u_m, u_v = torch.zeros_like(u_theta), torch.zeros_like(u_theta)
    beta1, beta2, eps, decay = (float(x) for x in saved["adam"])
    scores = {}
    for step in reversed(range(len(saved["rate"]))):
        stage, number = int(saved["stage"][step]), int(saved["number"][step])
        if scores and stage not in scores:  # a new stage begins with empty moments
            u_m, u_v = torch.zeros_like(u_theta), torch.zeros_like(u_theta)
        g = saved["gradient"][step].float()
        d, s = ops.adam_preconditioner(
            saved["first"][step] / (1 - beta1**number), saved["second"][step] / (1 - beta2**number), eps=eps
        )
        common = {"lr": float(saved["rate"][step]), "step": number, "beta1": beta1, "beta2": beta2}
        push = ops.adamw_influence_push(saved["removed"][step][None].float(), g, d, s, **common)
        scores[stage] = scores.get(stage, 0.0) - float((push @ torch.cat([u_theta, u_m, u_v], 1).T).squeeze())
        own = saved[rows][step].float()
        coupled = ops.adamw_influence_coupling(u_theta, u_m, u_v, own, g, d, s, **common)
        u_theta, u_m, u_v = ops.adamw_influence_transition(u_theta, u_m, u_v, d, s, weight_decay=decay, **common)
        u_theta = u_theta + (scale or 1.0 / len(own)) * (coupled.T @ own)
    return [scores[stage] for stage in sorted(scores)]


if __name__ == "__main__":
    sys.path = [p for p in sys.path if p != str(Path(__file__).parent)]
    main()
