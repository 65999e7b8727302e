"""Plan of an edit job: checked before a model is loaded."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ontogeny.editing.effects import EditPrompts
from ontogeny.editing.facts import FactEdit
from ontogeny.editing.nulls import NULL_KINDS
from ontogeny.editing.session import EditSettings
from ontogeny.errors import BadInput
from ontogeny.jobs.resumable import WeightIdentity, weight_identity
from ontogeny.lineage import Checkpoint
from ontogeny.lineage.fetch import checkpoint_config
from ontogeny.models.loading import ModelOptions, parse_config
from ontogeny.models.size import check_family_supported, measure_flops_per_second, model_size
from ontogeny.storage.files import content_digest

_EDIT_VERSION = 1
_MOST_EFFECT_TEXTS = 16
_PREFIX_WORDS = 6


@dataclass(frozen=True)
class EditPlan:
    """An edit job."""

    checkpoint: Checkpoint
    identity: WeightIdentity
    facts: tuple[FactEdit, ...]
    texts: tuple[str, ...]
    """For the second moment of the keys."""
    prefixes: tuple[str, ...]
    """Openings of texts, before which the fact is read."""
    prompts: EditPrompts
    settings: EditSettings
    together: bool
    controls: int
    seed: int

    @property
    def unit(self) -> str:
        """Name of the unit; equal for equal work."""
        about = [asdict(self.settings), asdict(self.prompts), [asdict(fact) for fact in self.facts]]
        reads = [list(self.texts), list(self.prefixes), self.together, self.controls, self.seed]
        return "edit-" + content_digest([_EDIT_VERSION, self.identity.whole, *about, *reads])


@dataclass(frozen=True)
class EditEstimate:
    """Cost of an edit job."""

    checkpoint: str
    facts: int
    layers: tuple[int, ...]
    parameters: int
    texts: int
    tokens: int
    """About so many tokens pass through the model."""
    seconds: float


def plan_edit(
    checkpoint: Checkpoint,
    facts: Sequence[FactEdit],
    texts: Sequence[str],
    settings: EditSettings | None = None,
    *,
    paraphrases: Sequence[str] = (),
    neighbours: Sequence[str] = (),
    before: str = "",
    together: bool = False,
    prefixes: int = 5,
    controls: int = 8,
    seed: int = 0,
    model: ModelOptions | None = None,
) -> EditPlan:
    """Plan the edit of facts of one checkpoint.

    Args:
        texts: Texts like those of the training: for the second moment of the keys, the contexts, and, every eighth, for the side effects.
        before: The old object of the first fact; by default what the model gives.
        prefixes: Number of contexts of a fact, openings of texts.
        controls: Nulls of each kind.

    Raises:
        BadInput: no facts or texts, a layer that the model does not have, or a checkpoint that cannot be read.
    """
    settings, options = settings or EditSettings(), model or ModelOptions()
    different = [text for text in dict.fromkeys(texts) if text.strip()]
    if not facts or any(not fact.answer.strip() for fact in facts):
        raise BadInput(
            "`facts` must be at least one, each with a new object: give the text before the object, and the object."
        )
    if len(different) < 2:
        raise BadInput(
            f"`texts` must hold at least 2 different texts, got {len(different)}: give texts like those of the training."
        )
    if controls < 0 or prefixes < 0:
        raise BadInput(f"`controls` and `prefixes` must be at least 0, got {controls} and {prefixes}.")
    check_family_supported(checkpoint)
    layers = _layers(checkpoint)
    if layers and (wrong := [layer for layer in settings.layers if not 1 <= layer <= layers]):
        raise BadInput(f"`layer` must be 1 to {layers}, the blocks of this model, got {wrong[0]}.")
    held_out = different[::8][:_MOST_EFFECT_TEXTS]
    rest = [text for text in different if text not in held_out] or different
    opened = [" ".join(text.split()[:_PREFIX_WORDS]) for text in _spaced(rest, prefixes)]
    return EditPlan(
        checkpoint,
        weight_identity(checkpoint, allow_pickle=options.allow_pickle, tokenizer=options.tokenizer),
        tuple(facts),
        tuple(rest),
        tuple(opened),
        EditPrompts(tuple(paraphrases), tuple(neighbours), tuple(held_out), before),
        settings,
        together,
        controls,
        seed,
    )


def estimate_edit(plan: EditPlan, model: ModelOptions | None = None) -> EditEstimate:
    """Cost of `edit`, without running it."""
    options = model or ModelOptions()
    size = model_size(plan.checkpoint, weights=plan.identity.bytes)
    context = max(len(plan.facts[0].prompt.split()) + _PREFIX_WORDS, 2) * 1.5
    read = sum(len(text.split()) for text in plan.texts) * 1.5
    # A step of the gradient descent costs three passes over the fact in its contexts.
    descent = len(plan.facts) * plan.settings.value.steps * 3 * (1 + len(plan.prefixes)) * context
    measured = sum(len(text.split()) for text in (*plan.prompts.texts, *plan.prompts.neighbours)) * 3.0
    visits = len(plan.facts) * (1 if len(plan.facts) == 1 or plan.together else 2)
    arms = visits * (2 + len(NULL_KINDS) * plan.controls)
    tokens = round(min(read, 100_000) + descent + measured * arms)
    speed = measure_flops_per_second(options.device, options.torch_dtype)
    count = _layers(plan.checkpoint) or 1
    return EditEstimate(
        plan.checkpoint.label,
        len(plan.facts),
        plan.settings.layers or ((count + 1) // 2,),
        size.parameters,
        len(plan.texts),
        tokens,
        round(2 * size.products * tokens / speed + plan.identity.bytes / 5e8, 1),
    )


def _layers(checkpoint: Checkpoint) -> int:
    """Number of blocks; 0 if the config does not say."""
    config = parse_config(checkpoint_config(checkpoint))
    return 0 if config is None else int(getattr(config.get_text_config(), "num_hidden_layers", 0))


def _spaced(texts: Sequence[str], count: int) -> list[str]:
    """Evenly spaced texts, at most `count`."""
    count = min(count, len(texts))
    return [texts[i * len(texts) // count] for i in range(count)]
