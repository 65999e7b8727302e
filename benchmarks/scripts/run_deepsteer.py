"""deepsteer on a series: its probe of every layer at each checkpoint, each loaded afresh as its `CheckpointTrajectoryProbe` does.

The trajectory probe names revisions of a repository on the Hub; a local folder has none, so its loop is run here.
"""

import gc
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path = [p for p in sys.path if p != str(Path(__file__).parent)]

import common
import torch
import transformers.models.llama.modeling_llama  # noqa: F401 - imports do not count
from deepsteer.benchmarks.representational.probing import LayerWiseMoralProbe
from deepsteer.core.model_interface import WhiteBoxModel
from deepsteer.core.types import MoralFoundation
from deepsteer.datasets.types import DatasetMetadata, GenerationMethod, NeutralDomain, ProbingDataset, ProbingPair


def main():
    torch.set_num_threads(1)
    options = common.arguments()
    pairs = [pair(a, b) for a, b in options.work["pairs"]]
    fifth = len(pairs) // 5
    about = DatasetMetadata("1", "handwritten", len(pairs), len(pairs) - fifth, fifth)
    dataset = ProbingDataset(pairs[fifth:], pairs[:fifth], about)
    clock, scores = common.Clock(), []
    for checkpoint in options.checkpoints:
        model = WhiteBoxModel(str(checkpoint), device="cpu", torch_dtype=torch.float32)
        scores.append(LayerWiseMoralProbe(dataset).run(model).layer_scores)
        del model
        gc.collect()
    accuracies = [round(float(score.accuracy), 3) for score in scores[-1]]
    clock.tell(["torch", "transformers", "deepsteer"], accuracies=accuracies, numbers=sum(len(s) * 2 for s in scores))


def pair(moral, neutral):
    counts = (len(moral.split()), len(neutral.split()))
    return ProbingPair(
        moral, neutral, next(iter(MoralFoundation)), NeutralDomain.MATCHED, GenerationMethod.HANDWRITTEN, *counts
    )


main()
