"""nnterp: standardised names over nnsight, one trace a batch of 32."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path = [p for p in sys.path if p != str(Path(__file__).parent)]

import common
import torch
from nnterp import StandardizedTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    torch.set_num_threads(1)
    told = common.arguments()
    clock = common.Clock()
    for checkpoint in told.checkpoints:
        with clock("load"):
            network = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
            tokenizer = AutoTokenizer.from_pretrained(told.folder)
            tokenizer.pad_token = tokenizer.pad_token or "w0"
            model = StandardizedTransformer(network, tokenizer=tokenizer, check_renaming=False, allow_dispatch=False)
        with clock("forward"), torch.inference_mode():
            for tokens, mask, at, last in common.padded(told.work["ids"], 32):
                with model.trace({"input_ids": tokens, "attention_mask": mask}):
                    kept = list().save()
                    kept.append(model.layers_input[0][at, last])
                    for i in range(model.num_layers):
                        kept.append(model.layers[i].self_attn.dense.input[at, last])
                        kept.append(model.layers_output[i][at, last])
                assert kept[-1].shape == (len(tokens), network.config.hidden_size)
    clock.tell(["torch", "transformers", "nnterp", "nnsight"])


if __name__ == "__main__":
    main()
