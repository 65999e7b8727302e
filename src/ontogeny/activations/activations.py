"""Activations read for one concept at one checkpoint: by `capture`, or as the input of `measure` and an entry of the activation cache."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import one_hot

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import CaptureResult, capture_workload
from ontogeny.activations.workload import ConceptRows, build_workload, text_workload
from ontogeny.data.concept import Concept
from ontogeny.data.examples import TargetKind
from ontogeny.data.open_concept import load_concept
from ontogeny.data.positions import Position
from ontogeny.data.templates import Template, template_name
from ontogeny.errors import BadInput
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.notebook import rich_html
from ontogeny.records import Record
from ontogeny.sites import Site

if TYPE_CHECKING:
    from ontogeny.data.open_concept import ConceptSource


@dataclass(frozen=True, eq=False)
class ActivationOrigin:
    """Source of activations: texts, their targets, and the model."""

    name: str
    """Name of the concept; "texts" for a list of texts."""
    model: str
    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    position: str
    tokenizer: str
    """Fingerprint of the model's tokenizer."""
    kind: TargetKind = "binary"
    classes: tuple[str, ...] = ()
    labels: Shaped[Tensor, " example"] | None = None
    groups: Int[Tensor, " example"] | None = None
    pairs: Int[Tensor, " example"] | None = None

    def select(self, index: Int[Tensor, " example"]) -> "ActivationOrigin":
        """The origin of some examples."""
        rows = index.tolist()
        return replace(
            self,
            texts=tuple(self.texts[i] for i in rows),
            tokens=tuple(self.tokens[i] for i in rows),
            labels=None if self.labels is None else self.labels[index],
            groups=None if self.groups is None else self.groups[index],
            pairs=None if self.pairs is None else self.pairs[index],
        )


@dataclass(frozen=True, eq=False)
class Activations:
    """Pooled activations of all examples, with the answer margins of the concept's questions."""

    parts: Mapping[str, Float[Tensor, "site example d"]]
    """On the model's device, where probes and dependence are computed."""
    sites: Mapping[str, Sequence[Site]]
    """Sites of each part, in the order of its tensor."""
    inputs: Float[Tensor, "example d"]
    """Mean embedding of each text."""
    margin: Float[Tensor, " answer"] | None
    """Log-likelihood of the right minus the wrong answer of each question, nats."""
    truncated: Mapping[str, int] = field(default_factory=dict)
    """Number of `texts` and `prompts` truncated to the context."""
    template: str = "none"
    """Name of the template of this model that the texts are in."""
    origin: "ActivationOrigin | None" = None
    """Texts, labels and model; None inside a trace, which knows them from its plan."""

    def __getitem__(self, site: Site | str) -> Float[Tensor, "example d"]:
        """The activations of one site: `activations["resid.6"]`.

        Raises:
            BadInput: the site was not read.
        """
        wanted = Site.parse(site) if isinstance(site, str) else site
        if wanted not in self.sites.get(wanted.part, ()):
            raise unknown_site(wanted, self.sites)
        return self.parts[wanted.part][list(self.sites[wanted.part]).index(wanted)]

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.inputs)

    @property
    def labels(self) -> Shaped[Tensor, " example"]:
        """Bool for two classes, int64 for more, float32 for numbers.

        Raises:
            BadInput: the texts have no labels.
        """
        if self.origin is None or self.origin.labels is None:
            raise BadInput(
                "activations must have labels for this, got texts without: capture a concept (load_concept, Concept.from_pairs), or give "
                "`labels`."
            )
        return self.origin.labels

    @property
    def groups(self) -> Int[Tensor, " example"]:
        """Group of each example; each text is a group of its own without a concept."""
        groups = self.origin.groups if self.origin else None
        return torch.arange(len(self)) if groups is None else groups

    @property
    def tokens(self) -> tuple[tuple[int, ...], ...]:
        """Token ids of each text, special tokens included."""
        return self.origin.tokens if self.origin else ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts."""
        return self.origin.texts if self.origin else ()

    def select(self, examples: Sequence[int] | Tensor) -> "Activations":
        """The activations of some examples, by index or by a mask: `activations.select(activations.groups < 20)`."""
        index = torch.as_tensor(examples)
        index = index.nonzero().flatten() if index.dtype == torch.bool else index
        on_device = {part: values[:, index.to(values.device)] for part, values in self.parts.items()}
        origin = self.origin.select(index) if self.origin else None
        inputs = self.inputs[index.to(self.inputs.device)]
        return replace(self, parts=on_device, inputs=inputs, margin=None, origin=origin)

    def _repr_html_(self) -> str:
        return rich_html("activations", self)

    @classmethod
    def of(cls, concept: Concept, captured: CaptureResult, rows: ConceptRows) -> "Activations":
        """The rows of one concept in the result of a pass over several."""
        return cls(
            parts={part: values[:, rows.reads] for part, values in captured.parts.items()},
            sites=captured.sites,
            inputs=captured.inputs[rows.sequences],
            margin=answer_margins(captured.answers.cpu(), rows) if concept.answers else None,
            truncated=rows.truncated,
            template=rows.template,
        )

    def truncation_rows(self, concept: Concept, seed: int) -> list[Record]:
        """Records of how many texts and prompts were truncated; empty without truncation."""
        total = {"texts": len(concept.examples), "prompts": len(concept.answers)}
        return [
            Record(
                "shortened", count, concept=concept.name, split="all", n=total[what], seed=seed, coords={"what": what}
            )
            for what, count in self.truncated.items()
            if count
        ]


def capture(
    model: Model,
    texts: "ConceptSource | Sequence[str]",
    sites: str | Sequence[str] = "resid",
    *,
    position: str = "last",
    truncate: bool = False,
    template: Template = False,
) -> Activations:
    """Read the activations of a concept's examples, or of texts, in one forward pass, as a trace does.

    Args:
        model: From `load_model`.
        texts: A concept or what `load_concept` takes (a name, a file, a data frame), or a list of texts without labels.
        sites: Patterns such as `resid`, `resid.6`, `head.3`, `mlp.2-5`; several as a list or separated by commas.
        position: Where a list of texts is read: `last`, `first`, `mean`, …; a concept has its own.
        truncate: Whether to cut texts that are longer than the context to their last tokens.
        template: Template that a list of texts is put into, see `ontogeny.data.templates`; a concept has its own.

    Returns:
        Activations `[site, example, d]` by part, float32 on the model's device, with labels, groups and tokens.

    Raises:
        BadInput: the model has no such site, a text is empty or too long, or the concept cannot be opened.
    """
    wanted, device = model.sites(sites), model.device
    listed = isinstance(texts, Sequence) and not isinstance(texts, str)
    concept = None if listed else load_concept(cast("ConceptSource", texts))
    if concept is None:
        given = tuple(cast("Sequence[str]", texts))
        if not given or not all(isinstance(text, str) and text.strip() for text in given):
            raise BadInput(
                f"`texts` must be a concept or a list of texts that are not empty, got {list(given)[:3]!r}: remove empty ones."
            )
        where = Position.parse(position)
        work, reads, sequences = text_workload(
            given, model.tokenizer, model.context, where, truncate=truncate, template=template
        )
    else:
        bare = replace(concept, answers=())
        work, rows = build_workload([bare], model.tokenizer, model.context, truncate=truncate)
        given, where = concept.texts, concept.position
        reads, sequences = rows[concept.name].reads, rows[concept.name].sequences
    captured = capture_workload(model, work, wanted)
    described = _targets_of(concept) if concept is not None else {}
    return Activations(
        parts={part: values[:, reads.to(device)] for part, values in captured.parts.items()},
        sites=captured.sites,
        inputs=captured.inputs[sequences.to(device)],
        margin=None,
        template=template_name(model.tokenizer, concept.template if concept is not None else template),
        origin=ActivationOrigin(
            name=concept.name if concept is not None else "texts",
            model=model.name,
            texts=given,
            tokens=tuple(work.sequences[i] for i in sequences.tolist()),
            position=str(where),
            tokenizer=tokenizer_fingerprint(model),
            **described,
        ),
    )


def _targets_of(concept: Concept) -> dict[str, Any]:
    pairs = concept.pair_ids()
    return {
        "kind": concept.kind,
        "classes": concept.classes,
        "labels": concept.labels(),
        "groups": concept.group_ids(),
        "pairs": pairs if (pairs >= 0).any() else None,
    }


def unknown_site(site: Site, known: Mapping[str, Sequence[Site]]) -> BadInput:
    """The error for a site that was not read."""
    names = [str(one) for group in known.values() for one in group]
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return BadInput(f"the site {site} was not read, only {listed}: name one of these, or capture it.")


def template_rows(concept: Concept, name: str, seed: int) -> list[Record]:
    """A record of the template that the texts of a concept are in at a checkpoint, 0 for none; empty if no template was asked for.

    Args:
        name: `template_name` of the checkpoint's tokenizer.
    """
    if not concept.template:
        return []
    inside, n = float(name != "none"), len(concept.examples) + len(concept.answers)
    coords = {"template": name}
    return [Record("in_template", inside, concept=concept.name, split="all", n=n, seed=seed, coords=coords)]


def activations_at_token(
    model: Model, rows: Sequence[Int[Tensor, " token"]], tokens: Sequence[int], sites: Sequence[Site]
) -> Float[Tensor, "site example d"]:
    """Activations at one token of each row, on the CPU; all sites must have one width and are returned in the given order."""
    reads = tuple(
        ActivationRead(i, one_hot(torch.tensor(token % len(row)), len(row)).float())
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True))
    )
    result = capture_workload(model, Workload(tuple(tuple(row.tolist()) for row in rows), reads), sites)
    return torch.stack([result.parts[site.part][result.sites[site.part].index(site)] for site in sites]).cpu()


def answer_margins(answers: Float[Tensor, " scored"], rows: ConceptRows) -> Float[Tensor, " answer"]:
    """Log-likelihood of the right minus the wrong answer of each question, nats."""
    return answers[rows.right] - answers[rows.wrong]
