"""nnsight: one trace a batch of 32, saving the last token of every block and of the input of every output projection."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path = [p for p in sys.path if p != str(Path(__file__).parent)]

import common
import torch
from nnsight import LanguageModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    torch.set_num_threads(1)
    told = common.arguments()
    clock = common.Clock()
    for checkpoint in told.checkpoints:
        with clock("load"):
            network = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
            model = LanguageModel(network, tokenizer=AutoTokenizer.from_pretrained(told.folder))
        with clock("forward"), torch.inference_mode():
            for tokens, mask, at, last in common.padded(told.work["ids"], 32):
                with model.trace({"input_ids": tokens, "attention_mask": mask}):
                    kept = list().save()
                    kept.append(model.gpt_neox.layers[0].input[at, last])
                    for layer in model.gpt_neox.layers:
                        kept.append(layer.attention.dense.input[at, last])
                        out = layer.output
                        kept.append((out[0] if isinstance(out, tuple) else out)[at, last])
                assert kept[-1].shape == (len(tokens), network.config.hidden_size)
    clock.tell(["torch", "transformers", "nnsight"])


if __name__ == "__main__":
    main()
