"""pyvene: a collecting intervention at every block's output and at every output projection's input, batches of 32."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path = [p for p in sys.path if p != str(Path(__file__).parent)]

import common
import pyvene
import torch
from transformers import AutoModelForCausalLM


class Keep(torch.nn.Module):
    """Called by pyvene with the value of a component."""

    is_source_constant = True
    keep_last_dim = True

    def __init__(self):
        super().__init__()
        self.kept, self.at, self.last = None, None, None

    def forward(self, base, source=None, subspaces=None, **_):
        self.kept = base[self.at, self.last]
        return base


def main():
    torch.set_num_threads(1)
    told = common.arguments()
    clock = common.Clock()
    for checkpoint in told.checkpoints:
        with clock("load"):
            network = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
            count = network.config.num_hidden_layers
            paths = ["gpt_neox.layers[0].input"]
            paths += [
                f"gpt_neox.layers[{i}].{part}" for i in range(count) for part in ("output", "attention.dense.input")
            ]
            keeps = [Keep() for _ in paths]
            model = pyvene.IntervenableModel(
                [{"component": path, "intervention": keep} for path, keep in zip(paths, keeps, strict=True)],
                model=network,
            )
        with clock("forward"), torch.inference_mode():
            for tokens, mask, at, last in common.padded(told.work["ids"], 32):
                for keep in keeps:
                    keep.at, keep.last = at, last
                model({"input_ids": tokens, "attention_mask": mask})
                assert keeps[-1].kept.shape == (len(tokens), network.config.hidden_size)
    clock.tell(["torch", "transformers", "pyvene"])


if __name__ == "__main__":
    main()
