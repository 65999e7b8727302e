"""TransformerLens: `run_with_cache` on a bridge over the Hugging Face model, batches of 32 in natural order."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path = [p for p in sys.path if p != str(Path(__file__).parent)]

import common
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer


def main():
    torch.set_num_threads(1)
    told = common.arguments()
    clock = common.Clock()
    for checkpoint in told.checkpoints:
        with clock("load"):
            bridge = TransformerBridge.boot_transformers(
                str(checkpoint), tokenizer=AutoTokenizer.from_pretrained(told.folder), device="cpu"
            )
        count = bridge.cfg.n_layers
        wanted = [f"blocks.{i}.{part}" for i in range(count) for part in ("hook_resid_post", "hook_out", "attn.hook_z")]
        wanted.append("blocks.0.hook_resid_pre")
        with clock("forward"), torch.inference_mode():
            kept = []
            for tokens, mask, at, last in common.padded(told.work["ids"], 32):
                _, cache = bridge.run_with_cache(tokens, attention_mask=mask, names_filter=wanted)
                kept.append({name: value[at, last] for name, value in cache.items()})
            assert len(kept[0]) >= 2 * count, sorted(kept[0])
    clock.tell(["torch", "transformers", "transformer-lens"])


if __name__ == "__main__":
    main()
