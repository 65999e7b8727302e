"""A real SFT with TRL that saves often and keeps two checkpoints, for a process that watches its folder."""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Pause(TrainerCallback):
    """Makes a step as long as one of a larger model."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_step_end(self, args, state, control, **_) -> None:
        time.sleep(self.seconds)


def main() -> None:
    folder, out, steps, every, seconds = sys.argv[1:]
    torch.set_num_threads(1)
    rows = Dataset.from_list([{"text": f"they say {i} and we have seen {i * 7 % 100}"} for i in range(400)])
    settings = SFTConfig(
        output_dir=out,
        max_steps=int(steps),
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        save_strategy="steps",
        save_steps=int(every),
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        max_length=48,
    )
    SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder),
        settings,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(folder),
        callbacks=[Pause(float(seconds))],
    ).train()


if __name__ == "__main__":
    main()
