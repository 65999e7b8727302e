"""Sparse autoencoders of several seeds in one pass, compared with the plain loop that trains one seed at a time.

Run: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/sae.py`. Random GPT-NeoX of Pythia's shapes on texts of `workload`. The plain loop
is what everyone writes: for each seed and each epoch the model reads the texts with `output_hidden_states`, padded; a module with `topk`
and Adam is trained on the tokens of each batch. Both take as many steps of as many tokens. CPU seconds, rounds interleaved; explained
variance on the training tokens says whether both learn the same.
"""

import argparse
import csv
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
import workload
from torch import nn
from transformers import AutoModelForCausalLM

from ontogeny.models.model import load_model
from ontogeny.sae import SaeBudget, SaeSettings, chunk_activations, read_site_tokens, token_rows, train_autoencoders
from ontogeny.sites import Site

SEEDS, K, BATCH, ROWS = 8, 16, 512, 16


class PlainAutoencoder(nn.Module):
    """A top-k autoencoder as tutorials have it."""

    def __init__(self, d: int, latents: int) -> None:
        super().__init__()
        self.decoder = nn.Parameter(nn.functional.normalize(torch.randn(latents, d), dim=1))
        self.encoder = nn.Parameter(self.decoder.detach().T.clone())
        self.encoder_bias, self.decoder_bias = nn.Parameter(torch.zeros(latents)), nn.Parameter(torch.zeros(d))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = torch.relu((x - self.decoder_bias) @ self.encoder + self.encoder_bias)
        best = torch.topk(scores, K, dim=-1)
        latents = torch.zeros_like(scores).scatter(-1, best.indices, best.values)
        return latents @ self.decoder + self.decoder_bias


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="tiny")
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = workload.make(options.shape, options.texts, 1)
    with work.texts.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    folder = work.checkpoints[0]
    model = load_model(folder, tokenizer=work.folder)
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    site, rows = Site("resid", model.layers // 2), token_rows(model, texts)
    latents = 4 * model.d
    x = read_site_tokens(model, rows, site)
    ratios, shared, alone = [], 0.0, 0.0
    for _ in range(options.rounds):
        began = time.process_time()
        members = [SaeSettings("topk", latents, k=K, seed=seed) for seed in range(SEEDS)]
        own = train_autoencoders(chunk_activations(model, rows, site), members, SaeBudget(options.steps, BATCH))
        shared = time.process_time() - began
        began = time.process_time()
        plain = [plain_loop(network, rows.ids, site.layer, latents, options.steps, seed) for seed in range(SEEDS)]
        alone = time.process_time() - began
        ratios.append(alone / shared)
    figures = {
        "shape": options.shape,
        "width": model.d,
        "latents": latents,
        "seeds": SEEDS,
        "steps": options.steps,
        "tokens": len(x),
        "CPU seconds, ours": round(shared, 2),
        "CPU seconds, plain loop": round(alone, 2),
        "times faster, median": round(statistics.median(ratios), 2),
        "least": round(min(ratios), 2),
        "greatest": round(max(ratios), 2),
        "explained variance, ours": round(explained(own[0].reconstruct(x), x), 3),
        "explained variance, plain loop": round(explained(plain[0](x).detach(), x), 3),
    }
    print(json.dumps(figures, indent=1))


def plain_loop(network: nn.Module, ids: tuple, layer: int, latents: int, steps: int, seed: int) -> nn.Module:
    """Read a batch of texts, train on its tokens, read the next one, until all steps are taken."""
    torch.manual_seed(seed)
    autoencoder = PlainAutoencoder(network.config.hidden_size, latents)
    optimiser = torch.optim.Adam(autoencoder.parameters(), lr=3e-3)
    taken, held = 0, torch.empty(0, network.config.hidden_size)
    while True:
        order = torch.randperm(len(ids)).tolist()
        for start in range(0, len(order), ROWS):
            chosen = [ids[i] for i in order[start : start + ROWS]]
            padded = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
            mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in chosen], batch_first=True)
            with torch.no_grad():
                states = network(padded, attention_mask=mask, output_hidden_states=True).hidden_states[layer]
            mask[:, 0] = 0
            held = torch.cat([held, states[mask.bool()]])
            while len(held) >= BATCH:
                batch, held = held[:BATCH], held[BATCH:]
                loss = (autoencoder(batch) - batch).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                with torch.no_grad():
                    autoencoder.decoder.copy_(nn.functional.normalize(autoencoder.decoder, dim=1))
                taken += 1
                if taken == steps:
                    return autoencoder


def explained(rebuilt: torch.Tensor, x: torch.Tensor) -> float:
    return 1 - float((rebuilt - x).square().sum() / (x - x.mean(0)).square().sum())


if __name__ == "__main__":
    main()
