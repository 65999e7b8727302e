"""Study: which heads and neurons check a model's own reasoning, when do they form, and do they stand out from random ones?

Self-verification (arXiv:2504.14379). A small gated decoder learns CountDown with verdicts in its text, by supervised fine-tuning and GRPO.
"""

from collections.abc import Iterator, Mapping

from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.studies.self_verification._ablations import ablation_rows
from ontogeny.studies.self_verification._claims import CLAIMS, GRPO, SFT
from ontogeny.studies.self_verification._measures import READ_AT, VerdictTask
from ontogeny.studies.self_verification._over_training import Bench, course_rows, round_rows, solving_rows
from ontogeny.studies.self_verification._reading import head_rows, reading_rows
from ontogeny.studies.self_verification._settings import Settings
from ontogeny.studies.self_verification._training import make_world, train_models

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

TITLE = "Self-verification"
PAPER = "The Geometry of Self-Verification in a Task-Specific Reasoning Model, arXiv:2504.14379"
SETUP = """
A small decoder of the Llama shape learns CountDown from texts that try expressions at random and judge each with “this works” or “not”;
then GRPO rewards right answers exactly. Probes read the verdict at the parenthesis before it, and earlier. The value vectors nearest to
the probe, the heads that attend to the target, and those whose OV matrix drives these neurons are ablated at the parenthesis alone, beside
random sets of as many. All is measured over the checkpoints of both stages.
"""
DIFFERENCES = (
    "A number is one token, puzzles have three small numbers, and the search and its verdicts are taught by supervised fine-tuning; the "
    "paper's 3B model learned them by PPO.",
    "Attempts to be judged come in fours: two results crossed with two targets, with equal places and numbers. In the paper the valid "
    "attempt is always the last one.",
    "The nulls are random sets of heads and of neurons, shuffled verdicts, an untrained model and shuffled rewards; the paper has none.",
    "Attention to the target counts its mention in earlier verdicts as well: the paper counts the prompt alone.",
    "Heads are ranked by OV score among those that attend to the target, if there are more than three, else among all.",
    "A verdict counts as flipped if “not” is likelier than “this”; what the model writes then is classified as in the paper.",
)
CHALLENGES = (4, 11)

PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(
        width=16, layers=2, heads=2, largest=5, targets=12, most=20, attempts=2, sft_steps=10, sft_rows=8, sft_checkpoints=3, rounds=2,
        prompts=3, group=2, updates=1, rl_checkpoints=1, groups=8, generated=8, units=3, pooled=4, sets=4,
    ),
    "tiny": Settings(),
    "small": Settings(
        width=128, layers=5, largest=9, targets=30, most=60, attempts=4, sft_steps=8000, sft_rows=64, sft_rate=2e-3, sft_checkpoints=14,
        rounds=200, prompts=32, rl_checkpoints=8, groups=64, generated=256, pooled=32,
    ),
    "paper": Settings(
        width=512, layers=12, heads=8, largest=99, targets=999, most=9999, attempts=8, sft_steps=40_000, sft_rows=256, sft_rate=5e-4,
        sft_checkpoints=20, rounds=2000, prompts=128, group=16, updates=8, rl_rate=1e-5, rl_checkpoints=16, groups=128, generated=1024,
        units=50, pooled=200,
    ),
}  # fmt: skip
SECONDS = {"smoke": 4, "tiny": 170, "small": 10_000, "paper": 2_000_000}
_STEPS = "step of the optimiser: SFT, then GRPO"
PICTURES = (
    StudyPicture(
        "Texts of test puzzles: shares solved, in form, with right calculations and right verdicts",
        ("share",),
        x_title=_STEPS,
        caption="At temperature 1. “This works” right: of the attempts that are accepted, the share whose stated result is the target.",
    ),
    StudyPicture(
        "Accuracy of probes of the verdict at the last layer, over training",
        ("accuracy_over_training",),
        tuple(READ_AT),
        x_title=_STEPS,
        caption="Result, target, numbers and place are matched; chance is .5. Dashed: verdicts shuffled within matched attempts.",
    ),
    StudyPicture(
        "Accuracy of probes of the verdict by layer, after GRPO",
        ("accuracy_by_layer",),
        tuple(READ_AT),
        x_title="layer (count)",
    ),
    StudyPicture(
        "OV score of each head against the attention to the target",
        ("head_target_mass", "head_ov_score"),
        (SFT, GRPO),
        points=True,
    ),
    StudyPicture(
        "OV score of each head against the verdicts that flip without it alone",
        ("head_ov_score", "head_flips"),
        (GRPO,),
        points=True,
    ),
    StudyPicture(
        "Verdicts flipped by ablations, against the distribution of random ones",
        ("flipped_at",),
        x_title="share of the random sets that flip at most as many verdicts (%)",
        caption="Level lines: the sets of the paper. Rising lines: random sets of as many; one head that is enough alone makes a step.",
    ),
    StudyPicture(
        "When the parts form",
        ("formed",),
        x_title=_STEPS,
        caption="Heads and value vectors are those of the last checkpoint. Dashed: random heads.",
    ),
    StudyPicture(
        "GRPO: mean reward, share of groups without advantage, truncated answers, KL to its start",
        ("grpo",),
        x_title="round",
        caption="A group without advantage has equal rewards and gives no gradient. Dashed: shuffled rewards.",
    ),
)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed."""
    world = make_world(settings, lab.seed)
    models = train_models(settings, lab, world)
    bench = Bench(settings, lab, models, VerdictTask.of(settings, world, lab.seed))
    yield from round_rows(bench)
    circuit = bench.circuit(models.last("grpo"))
    yield from course_rows(bench, circuit)
    yield from reading_rows(bench)
    yield from head_rows(bench, circuit)
    yield from ablation_rows(bench, circuit)
    yield from solving_rows(bench)
