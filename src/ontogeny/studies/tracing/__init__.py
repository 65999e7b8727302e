"""Study: when do concepts become readable in pretraining, do vectors from pretraining steer the tuned model, and does information fall?

Tracing trustworthiness dynamics (arXiv:2402.19465): probes, steering vectors and dependence over the checkpoints of one pretraining run.
Each number is taken in the paper's protocol (contiguous split, z-scored over all rows, kernel of width 50) and in ours (cross-fitted over
groups, median kernel, MINE on held-out groups).
"""

from collections.abc import Iterator, Mapping

from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.studies.tracing._claims import CLAIMS, FAMILIES
from ontogeny.studies.tracing._information import dependence_rows
from ontogeny.studies.tracing._models import Settings, pretrain
from ontogeny.studies.tracing._readability import probe_rows
from ontogeny.studies.tracing._steering import steering_rows
from ontogeny.worlds import nursery

__all__ = [
    "CHALLENGES",
    "CLAIMS",
    "DIFFERENCES",
    "PAPER",
    "PICTURES",
    "PRESETS",
    "SECONDS",
    "SETUP",
    "TITLE",
    "Settings",
    "run",
]

TITLE = "Tracing concepts through pretraining"
PAPER = "Towards Tracing Trustworthiness Dynamics, arXiv:2402.19465"
SETUP = """
Small language models are trained on the nursery, a generated world, then fine-tuned on conversations. Concepts are probed at checkpoints of
pretraining (T1). Vectors from pretraining are added to the fine-tuned model, at the last token, and their effect on its answers is compared
with that of its own vector, of random ones and of the average over checkpoints (T2). Dependence of the activations on the input and on the
label is followed over the checkpoints, by HSIC and by MINE (T3). T1 and T3 are repeated for a Llama-shaped and a GPT-2-shaped model.
"""
DIFFERENCES = (
    "Models of .2 million parameters in a generated world in place of Amber 7B; insults and good or bad moods in place of five "
    "dimensions of trustworthiness. The effect of a vector is a change of log-odds of the next word, not of the answers of a benchmark.",
    "The paper's dependence has no unit and is not information; MINE is a bound in nats. On the 100 to 160 texts of its training "
    "its network fits chance, and the bound on the others falls below zero where there is little to find.",
    "Checkpoints are dense from the first steps on. Seeds differ in the world, the weights and the data.",
)
CHALLENGES = (2, 10, 11)

PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(
        steps=8, tuning=2, checkpoints=4, width=16, layers=2, controls=1, items=4, averaged=2, mine_steps=5, concepts=("sentiment",),
    ),
    "tiny": Settings(),
    "small": Settings(
        steps=3200, tuning=250, checkpoints=24, context=64, width=128, layers=4, families=33, potions=96, items=48,
        concepts=("rudeness", "sentiment", "truth", "inverse", "courtesy"), mine_steps=300, averaged=8, controls=20,
    ),
    "paper": Settings(
        steps=50_000, tuning=2000, checkpoints=60, context=128, width=512, layers=12, families=200, potions=200, items=200,
        concepts=("rudeness", "sentiment", "truth", "inverse", "courtesy", "forbidden"), mine_steps=1000, averaged=16, controls=50,
    ),
}  # fmt: skip
SECONDS = {"smoke": 3, "tiny": 37, "small": 1500, "paper": 400_000}
PICTURES = (
    StudyPicture("T1: accuracy of a probe in the middle layer, paper's protocol", ("accuracy_along",), tuple(FAMILIES)),
    StudyPicture("T1: AUROC of a cross-fitted probe in the middle layer", ("auroc_along",), tuple(FAMILIES)),
    StudyPicture("T3: dependence on the input (T, X)", ("paper_tx_along", "median_tx_along", "mine_tx_along"), tuple(FAMILIES)),
    StudyPicture("T3: dependence on the label (T, Y)", ("paper_ty_along", "median_ty_along", "mine_ty_along"), tuple(FAMILIES)),
)  # fmt: skip


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: three pretraining runs with T1 and T3, and a fine-tuned model with T2."""
    world = nursery.make(
        nursery.Config(families=settings.families, potions=settings.potions, context=settings.context, seed=lab.seed)
    )
    concepts = [c for c in nursery.concepts(world) if c.name in settings.concepts]
    for index, family in enumerate(FAMILIES):
        lab.on_activity(f"{family}, pretraining", index, 4)
        snapshots = pretrain(settings, lab, world, family, concepts)
        for concept in concepts:
            yield from probe_rows(lab, family, concept, snapshots)
            yield from dependence_rows(settings, lab, family, concept, snapshots)
        if index == 0:
            pretrained = snapshots
    lab.on_activity("fine-tuning and steering", 3, 4)
    yield from steering_rows(settings, lab, world, concepts, pretrained)
