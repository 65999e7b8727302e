"""Plan of a gauge job: checked before a model is loaded."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.gauges.chat_template import lineage_chat_template
from ontogeny.gauges.labelled_chats import class_count
from ontogeny.gauges.labels import GaugeLabel, gauge_label, parse_gauge_names
from ontogeny.gauges.packing import PackSettings, with_suffix
from ontogeny.gauges.three_splits import three_splits
from ontogeny.jobs.resumable import WeightIdentity, check_concepts, weight_identity
from ontogeny.lineage import Checkpoint
from ontogeny.lineage.fetch import checkpoint_config
from ontogeny.models.loading import ModelOptions, parse_config
from ontogeny.models.size import check_family_supported, measure_flops_per_second, model_size
from ontogeny.sites import Site
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

_GAUGES_VERSION = 2


@dataclass(frozen=True)
class GaugePlan:
    """A gauge job."""

    checkpoint: Checkpoint
    identity: WeightIdentity
    concepts: tuple[Concept, ...]
    labels: tuple[GaugeLabel, ...]
    template: str
    """The chat template in Jinja."""
    questions: tuple[str, ...]
    settings: PackSettings

    def unit(self, concept: Concept) -> str:
        """Name of the unit of a concept; equal for equal work."""
        label = self.labels[[one.name for one in self.concepts].index(concept.name)]
        work = [concept.hash, asdict(label), self.template, list(self.questions), asdict(self.settings)]
        return "gauges-" + content_digest([_GAUGES_VERSION, self.identity.whole, *work])


@dataclass(frozen=True)
class GaugesEstimate:
    """Cost of a gauge job."""

    checkpoint: str
    concepts: int
    concepts_to_do: int
    conversations: int
    questions: int
    pushes: int
    tokens: int
    """About so many tokens pass through the model."""
    seconds: float


def plan_gauges(
    checkpoint: Checkpoint,
    concepts: Sequence[Concept],
    settings: PackSettings | None = None,
    *,
    template: str = "",
    questions: Sequence[str] = (),
    users: Sequence[str] = (),
    systems: Sequence[str] = (),
    model: ModelOptions | None = None,
) -> GaugePlan:
    """Plan the gauges of a checkpoint.

    Args:
        template: A chat template in Jinja; by default that of the lineage or the tokenizer.
        questions: Held-out user's turns in the place of the concepts' own.
        users, systems: Concepts about the user and about the system, with names of their classes or without.

    Raises:
        BadInput: no concepts, one that has no three splits, no chat template, or a checkpoint that cannot be read.
    """
    settings, options = settings or PackSettings(), model or ModelOptions()
    check_concepts(concepts)
    named = parse_gauge_names(users, systems, [concept.name for concept in concepts])
    entries = ({"name": c.name, "question": c.question, "classes": list(c.classes), "kind": c.kind} for c in concepts)
    labels = tuple(with_suffix(gauge_label(entry, named), settings.suffix) for entry in entries)
    for concept in concepts:
        if concept.kind == "number":
            raise BadInput(f"a gauge must be of classes, and the target of {concept.name} is a number: leave it out.")
        y, groups = concept.labels().long(), concept.group_ids()
        three_splits(concept.name, y, groups, class_count(concept), seed=settings.seed)
    check_family_supported(checkpoint)
    layers = _layers(checkpoint)
    if settings.control_site and layers and (site := Site.parse(settings.control_site)).layer > layers:
        raise BadInput(f"`control_site` must be resid.0 to resid.{layers} of this model, got {site}: change it.")
    text = template or lineage_chat_template(checkpoint, options.tokenizer)[0]
    return GaugePlan(
        checkpoint,
        weight_identity(checkpoint, allow_pickle=options.allow_pickle, tokenizer=options.tokenizer),
        tuple(concepts),
        labels,
        text,
        tuple(dict.fromkeys(question for question in questions if question.strip())),
        settings,
    )


def estimate_gauges(plan: GaugePlan, out: str | Path, model: ModelOptions | None = None) -> GaugesEstimate:
    """Cost of `gauges`, without running it."""
    options, run, settings = model or ModelOptions(), Run(Path(out)), plan.settings
    missing = [concept for concept in plan.concepts if not (run.exists() and run.done(plan.unit(concept)))]
    layers = _layers(plan.checkpoint) or 1
    conversations = questions = pushes = 0
    tokens = 0.0
    for concept in missing:
        length = 1.5 * sum(len(text.split()) for text in concept.texts) / len(concept.examples) + 8
        classes = class_count(concept)
        held_out = len(plan.questions) or 0.3 * (len(concept.answers) or len(concept.examples))
        asked = min(settings.questions, round(held_out))
        spaces = 1 if classes == 2 else classes
        own = spaces * settings.controls + 2 * classes + 1
        tried = (0 if settings.control_site else max(1, layers - 1) * classes + 1) * min(asked, 24)
        answer = length * classes if concept.answers else length + settings.tokens
        conversations, questions, pushes = conversations + len(concept.examples), questions + asked, pushes + own
        tokens += 2 * len(concept.examples) * length + (own * asked + tried) * answer
    size = model_size(plan.checkpoint, weights=plan.identity.bytes)
    speed = measure_flops_per_second(options.device, options.torch_dtype)
    seconds = round(2 * size.products * tokens / speed + plan.identity.bytes / 5e8 + 2 * len(missing), 1)
    return GaugesEstimate(
        plan.checkpoint.label,
        len(plan.concepts),
        len(missing),
        conversations,
        questions,
        pushes,
        round(tokens),
        seconds if missing else 0.0,
    )


def _layers(checkpoint: Checkpoint) -> int:
    """Number of blocks; 0 if the config does not say."""
    config = parse_config(checkpoint_config(checkpoint))
    return 0 if config is None else int(getattr(config.get_text_config(), "num_hidden_layers", 0))
