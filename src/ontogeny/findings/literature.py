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
    study: str | None = None
    """Name of its study, if there is one."""
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
    LiteratureSystem("Trustworthiness dynamics over pre-training", "2402.19465", None, "trace"),
    LiteratureSystem("How post-training reshapes language models", "2504.02904", None, "compare"),
    LiteratureSystem("Who gets credit or blame? Stage attribution", "2506.00175", "stage_attribution", "attribute"),
    LiteratureSystem("Abrupt learning in transformers", "2410.22244", "abrupt_learning"),
    LiteratureSystem("Representation shattering by knowledge editing", "2410.17194"),
    LiteratureSystem("Reliable evaluation of behaviour steering", "2410.17245", None, "evaluate"),
    LiteratureSystem("Sparse autoencoders on formal languages", "2410.11767"),
    LiteratureSystem("Swing-by dynamics in concept learning", "2410.08309", "swing_by"),
    LiteratureSystem("A percolation model of emergence", "2408.12578"),
    LiteratureSystem("What makes and breaks safety fine-tuning", "2407.10264"),
    LiteratureSystem("Emergence of hidden capabilities", "2406.19370"),
    LiteratureSystem("Foundational challenges of language models", "2404.09932", None, "study challenges"),
    LiteratureSystem("When bad data leads to good models", "2505.04741"),
    LiteratureSystem("The geometry of self-verification", "2504.14379"),
    LiteratureSystem("Shared global and local geometry of embeddings", "2503.21073", None, "transfer"),
    LiteratureSystem("Dialogue action tokens", "2406.11978"),
    LiteratureSystem("TalkTuner: a dashboard of the user model", "2406.07882"),
    LiteratureSystem("Instruction (in)stability and persona drift", "2402.10962"),
    LiteratureSystem("Scene representations in a diffusion model", "2306.05720"),
    LiteratureSystem("Inference-time intervention", "2306.03341", None, "evaluate"),
    LiteratureSystem("The system model and the user model", "2305.02469"),
    LiteratureSystem("AttentionViz", "2305.03210"),
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
