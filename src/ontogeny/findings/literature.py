"""Systems of the literature on concept formation and the foundational challenges, with the study or command that speaks to each.

Challenges: arXiv:2404.09932, numbered in the order of the paper.
"""

from dataclasses import dataclass

from ontogeny.jobs.study.paper_study import PaperStudy


@dataclass(frozen=True)
class LiteratureSystem:
    """A published system."""

    name: str
    paper: str
    """arXiv id."""
    claim: str
    """Its main claim."""
    studies: tuple[str, ...] = ()
    """Names of its studies."""
    command: str | None = None
    """Command that does its measurement on a user's own model."""


@dataclass(frozen=True)
class Challenge:
    """A foundational challenge."""

    number: int
    group: str
    text: str
    out_of_scope: str = ""
    """Why no study speaks to it; empty if one could."""


SYSTEMS = (
    LiteratureSystem(
        "Trustworthiness dynamics over pre-training",
        "2402.19465",
        "Concepts become linearly readable early in pretraining; vectors from pretraining steer the tuned model; "
        "information about the input rises, then falls.",
        studies=("tracing",),
        command="trace",
    ),
    LiteratureSystem(
        "How post-training reshapes language models",
        "2504.02904",
        "Post-training keeps where knowledge is and the direction of truth; it changes the direction of refusal and, "
        "without entropy neurons, the confidence.",
        command="compare",
    ),
    LiteratureSystem(
        "Who gets credit or blame? Stage attribution",
        "2506.00175",
        "The effect of a training stage is estimated from one run, without retraining.",
        studies=("stage_attribution", "planted_toxicity", "nursery_stages"),
        command="attribute",
    ),
    LiteratureSystem(
        "Optimiser-aware training-data attribution",
        "2605.18814",
        "Estimates that follow AdamW's own steps rank effects far better than those of plain gradient descent.",
        studies=("stage_attribution",),
        command="attribute",
    ),
    LiteratureSystem(
        "Order variance of retraining",
        "2606.29554",
        "With AdamW the order of the data alone moves the end point to first order in the learning rate, so that "
        "retraining is a noisy truth.",
        studies=("stage_attribution",),
    ),
    LiteratureSystem(
        "Abrupt learning in transformers",
        "2410.22244",
        "Matrix completion is learned by copying first, then at once; heads, states and embeddings change with the drop.",
        studies=("abrupt_learning",),
    ),
    LiteratureSystem(
        "What happens during the loss plateau?",
        "2506.13688",
        "On the plateau outputs repeat and states collapse while attention slowly finds its sources.",
        studies=("abrupt_learning",),
    ),
    LiteratureSystem(
        "Representation shattering by knowledge editing",
        "2410.17194",
        "An edit distorts the representation of related facts, the more the further it moves one, and the distortion "
        "predicts the loss of accuracy.",
        studies=("knowledge_editing",),
        command="edit",
    ),
    LiteratureSystem(
        "Reliable evaluation of behaviour steering",
        "2410.17245",
        "Measured by likelihoods of open continuations, steering vectors do less than reported.",
        command="evaluate",
    ),
    LiteratureSystem(
        "Sparse autoencoders on formal languages",
        "2410.11767",
        "Latents that correlate with a feature are often not its cause; a causal loss helps.",
        studies=("sparse_autoencoders",),
    ),
    LiteratureSystem(
        "Swing-by dynamics in concept learning",
        "2410.08309",
        "The loss on unseen combinations rises on its way down; concepts are learned in the order of signal and diversity.",
        studies=("swing_by", "image_concepts"),
    ),
    LiteratureSystem(
        "A percolation model of emergence",
        "2408.12578",
        "The step at which a capability emerges is a power of the number of properties, as in percolation on a bipartite graph.",
        studies=("percolation",),
    ),
    LiteratureSystem(
        "What makes and breaks safety fine-tuning",
        "2407.10264",
        "Safety fine-tuning moves unsafe inputs into the null space of the weights; jailbreaks look like safe inputs.",
        studies=("safety_fine_tuning",),
        command="compare",
    ),
    LiteratureSystem(
        "Emergence of hidden capabilities",
        "2406.19370",
        "A capability can be elicited from the latent space before plain prompts show it.",
        studies=("hidden_capabilities", "image_concepts"),
    ),
    LiteratureSystem(
        "Foundational challenges of language models",
        "2404.09932",
        "Eighteen challenges for alignment and safety, as a map of what a tool addresses.",
        command="study challenges",
    ),
    LiteratureSystem(
        "When bad data leads to good models",
        "2505.04741",
        "Up to a tenth of toxic pretraining data makes toxicity easier to remove by steering, at a lower price.",
        studies=("toxic_pretraining", "rare_features"),
    ),
    LiteratureSystem(
        "The geometry of self-verification",
        "2504.14379",
        "A model that checks its own reasoning does so along few directions, written by few attention heads.",
        studies=("self_verification",),
    ),
    LiteratureSystem(
        "Shared global and local geometry of embeddings",
        "2503.21073",
        "Token embeddings of models of one family have the same geometry; steering vectors are carried over by a linear map.",
        studies=("embedding_geometry",),
        command="geometry",
    ),
    LiteratureSystem(
        "Dialogue action tokens",
        "2406.11978",
        "A small planner that writes two prefix vectors steers a whole dialogue towards a goal.",
        studies=("dialogue_actions",),
    ),
    LiteratureSystem(
        "TalkTuner: a dashboard of the user model",
        "2406.07882",
        "Probes read what a chat model believes about its user; users can see and correct it.",
        studies=("user_model",),
        command="gauges",
    ),
    LiteratureSystem(
        "Instruction (in)stability and persona drift",
        "2402.10962",
        "Within eight rounds a model drifts from its instructions as attention to them decays; split-softmax slows it.",
        studies=("persona_drift",),
        command="drift",
    ),
    LiteratureSystem(
        "The assistant axis",
        "2601.10387",
        "The projection on a principal axis of role vectors predicts persona drift; capping it prevents some.",
        command="drift",
    ),
    LiteratureSystem(
        "Scene representations in a diffusion model",
        "2306.05720",
        "Depth and salient objects are linearly readable in early denoising steps, and causal.",
        studies=("diffusion_scenes",),
    ),
    LiteratureSystem(
        "Inference-time intervention",
        "2306.03341",
        "Shifting few attention heads along probe directions makes answers more truthful.",
        command="evaluate",
    ),
    LiteratureSystem(
        "The system model and the user model",
        "2305.02469",
        "People should see how a model represents itself and its user, with uncertainty.",
        command="dashboard",
    ),
    LiteratureSystem(
        "AttentionViz",
        "2305.03210",
        "Queries and keys in one space show global patterns of attention heads.",
        studies=("attention_geometry",),
        command="dashboard",
    ),
    LiteratureSystem(
        "Fragility of probes over training",
        "2606.11375",
        "Accuracy of probes saturates early in training; the noise at which they fail keeps changing.",
        command="trace",
    ),
)

_SCIENCE, _METHODS, _SOCIETY = "Scientific understanding", "Development and deployment", "Sociotechnical"
_AGENTS = "one model at a time is trained and measured here; no agents act"
_SOCIAL = "a question for people and institutions, which no measurement of a training run answers"
CHALLENGES = (
    Challenge(1, _SCIENCE, "In-context learning is black-box"),
    Challenge(2, _SCIENCE, "Capabilities are difficult to estimate and understand"),
    Challenge(3, _SCIENCE, "Effects of scale on capabilities are not well characterised"),
    Challenge(4, _SCIENCE, "Qualitative understanding of reasoning capabilities is lacking"),
    Challenge(5, _SCIENCE, "Agentic models pose novel risks", _AGENTS),
    Challenge(6, _SCIENCE, "Multi-agent safety is not assured by single-agent safety", _AGENTS),
    Challenge(7, _SCIENCE, "Trade-offs between safety and performance are poorly understood"),
    Challenge(8, _METHODS, "Pretraining produces misaligned models"),
    Challenge(9, _METHODS, "Fine-tuning methods struggle to assure alignment and safety"),
    Challenge(10, _METHODS, "Evaluations are confounded and biased"),
    Challenge(11, _METHODS, "Tools for interpreting behaviour are absent or lack faithfulness"),
    Challenge(12, _METHODS, "Jailbreaks and prompt injections threaten security"),
    Challenge(13, _METHODS, "Vulnerability to poisoning and backdoors is poorly understood"),
    Challenge(14, _SOCIETY, "Values to be encoded within models are not clear", _SOCIAL),
    Challenge(15, _SOCIETY, "Dual-use capabilities enable malicious use and misuse", _SOCIAL),
    Challenge(16, _SOCIETY, "Systems can be untrustworthy", _SOCIAL),
    Challenge(17, _SOCIETY, "Socio-economic impacts may be highly disruptive", _SOCIAL),
    Challenge(18, _SOCIETY, "Governance is lacking", _SOCIAL),
)


def studies_of_challenge(number: int, studies: list[PaperStudy]) -> list[str]:
    """Names of the studies that say that they speak to a challenge."""
    return [study.name for study in studies if number in study.challenges]
