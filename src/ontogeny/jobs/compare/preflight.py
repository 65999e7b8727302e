"""Preflight of a comparison: differences between stages, from tokenizers and configurations only; no model is loaded.

Fine-tuned models may have additional tokens, another BOS token, another template or other post-instruction tokens. A part of the
difference between stages then does not come from training (arXiv:2504.02904 compares two templates and two positions without saying so).
"""

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from ontogeny.data.templates import Template, template_of
from ontogeny.data.tokenization import encode_text, encode_texts
from ontogeny.errors import BadInput
from ontogeny.lineage import Checkpoint, checkpoint_files, hub
from ontogeny.models.loading import nearest_tokenizer, open_tokenizer, read_config, silence_transformers
from ontogeny.storage.files import content_digest

_NOT_AVAILABLE = "–"


@dataclass(frozen=True)
class StageInfo:
    """Facts about a stage that are known without its weights."""

    stage: str
    checkpoint: str
    facts: Mapping[str, str]
    """Value of each compared fact, by its name."""
    ids: tuple[tuple[int, ...], ...]
    """Token ids of the compared texts."""


@dataclass(frozen=True)
class PreflightLine:
    """One fact, stage by stage."""

    what: str
    values: Mapping[str, str]

    @property
    def differs(self) -> bool:
        """Whether the stages differ in it. Checkpoint names always do, so they do not count."""
        return self.what != "checkpoint" and len(set(self.values.values())) > 1


@dataclass(frozen=True)
class PreflightReport:
    """Facts about all stages, side by side."""

    texts: int
    lines: tuple[PreflightLine, ...]
    cannot: tuple[str, ...]
    """Comparisons that are impossible, and why."""

    @property
    def with_chat_template(self) -> list[str]:
        """Stages whose tokenizer has a chat template."""
        line = next(line for line in self.lines if line.what == "chat template")
        return [stage for stage, value in line.values.items() if value != "none"]

    @property
    def differing(self) -> list[PreflightLine]:
        return [line for line in self.lines if line.differs]

    def as_json(self) -> dict[str, Any]:
        """The report as run.json holds it."""
        return {
            "texts": self.texts,
            "stages": list(self.lines[0].values),
            "lines": [asdict(line) | {"differs": line.differs} for line in self.lines],
            "cannot": list(self.cannot),
        }


def run_preflight(
    checkpoints: Mapping[str, Checkpoint],
    texts: Sequence[str],
    *,
    requests: Sequence[str] = (),
    template: Template = True,
    tokenizer: Path | None = None,
    allow_pickle: bool = False,
) -> PreflightReport:
    """Compare the stages' configurations and tokenizers.

    Args:
        texts: Texts whose token ids are compared.
        requests: Requests, whose last shared tokens are compared.
        template: Template in which they are asked.

    Raises:
        BadInput: a checkpoint, configuration or tokenizer that cannot be read.
    """
    silence_transformers()
    stages = []
    for name, checkpoint in checkpoints.items():
        checkpoint_files(checkpoint, allow_pickle=allow_pickle)
        folder = _small_files(checkpoint, allow_pickle)
        own = _tokenizer(folder, tokenizer)
        stages.append(describe_stage(name, checkpoint, read_config(folder), own, texts, requests, template))
    return compare_stage_info(stages)


def describe_stage(
    name: str,
    checkpoint: Checkpoint,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    requests: Sequence[str] = (),
    template: Template = False,
) -> StageInfo:
    """Facts about one stage."""
    inner = config.get_text_config()
    ids = tuple(tuple(tokenizer(text)["input_ids"]) for text in texts)
    front, back = _special_tokens_around(tokenizer)
    chat_template = tokenizer.chat_template
    facts = {
        "family": str(config.model_type),
        "dimensions": str(inner.hidden_size),
        "blocks": str(inner.num_hidden_layers),
        "heads": str(inner.num_attention_heads),
        "embedding rows": str(inner.vocab_size),
        "tokenizer size": f"{len(tokenizer)} ({content_digest(sorted(tokenizer.get_vocab().items()))[:8]})",
        "tokens before a text": front,
        "tokens after a text": back,
        "chat template": content_digest(chat_template)[:8] if chat_template else "none",
        "template tokens after a request": _template_suffix(tokenizer) if chat_template else _NOT_AVAILABLE,
        "post-instruction tokens": _shared_suffix(tokenizer, requests, template) if requests else _NOT_AVAILABLE,
        "padding": f"{tokenizer.padding_side}, {tokenizer.pad_token or 'no padding token'}",
    }
    return StageInfo(name, checkpoint.name, facts, ids)


def compare_stage_info(stages: Sequence[StageInfo]) -> PreflightReport:
    """The facts side by side, and the comparisons that they rule out."""
    first = stages[0]
    lines = [PreflightLine("checkpoint", {s.stage: s.checkpoint for s in stages})]
    lines += [PreflightLine(what, {s.stage: s.facts[what] for s in stages}) for what in first.facts]
    lines.append(PreflightLine("token ids of the texts", {s.stage: _token_id_difference(first, s) for s in stages}))
    cannot = (f"{a.stage} and {b.stage}: {why}" for a, b in itertools.combinations(stages, 2) for why in _limits(a, b))
    return PreflightReport(len(first.ids), tuple(lines), tuple(cannot))


def _limits(a: StageInfo, b: StageInfo) -> Iterator[str]:
    """Comparisons that two stages do not allow."""
    for what in ("dimensions", "blocks"):
        if a.facts[what] != b.facts[what]:
            yield (
                f"{a.facts[what]} and {b.facts[what]} {what}, so directions, states and neurons cannot be exchanged; "
                "each stage is measured alone"
            )
    if a.ids != b.ids:
        yield (
            "different tokens for the same texts, so states cannot be exchanged token by token; readings at the end of a text are "
            "still compared"
        )
    if (a.facts["chat template"] == "none") != (b.facts["chat template"] == "none"):
        yield "only one has a chat template, so readings in each stage's own template also differ by the template"


def _token_id_difference(first: StageInfo, other: StageInfo) -> str:
    """Difference of the token ids from the first stage's, with the first example."""
    unlike = [i for i, (a, b) in enumerate(zip(first.ids, other.ids, strict=True)) if a != b]
    if not unlike:
        return f"{len(first.ids)} texts"
    a, b = first.ids[unlike[0]], other.ids[unlike[0]]
    steps = [step for step in difflib.SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes() if step[0] != "equal"]
    if all(step[0] == "insert" for step in steps):
        how = f"phantom tokens {[token for *_, low, high in steps for token in b[low:high]]} in text {unlike[0] + 1}"
    else:
        how = f"text {unlike[0] + 1} has {len(a)} tokens in {first.stage} and {len(b)} here"
    return f"{len(unlike)} of {len(first.ids)} differ: {how}"


def _special_tokens_around(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Special tokens before and after every text, such as BOS and EOS."""
    with_them, bare = tokenizer("a b")["input_ids"], tokenizer("a b", add_special_tokens=False)["input_ids"]
    for at in range(len(with_them) - len(bare) + 1):
        if with_them[at : at + len(bare)] == bare:
            return _named(tokenizer, with_them[:at]), _named(tokenizer, with_them[at + len(bare) :])
    return "other tokens", _NOT_AVAILABLE


def _template_suffix(tokenizer: PreTrainedTokenizerBase) -> str:
    """Tokens that the chat template adds after the user's words."""
    try:
        encoding = encode_text(tokenizer, "tell me more", template=True)
    except BadInput as error:
        return f"unknown: {error}"
    ids = encoding.ids[encoding.instruction_end :].tolist()
    return f"{len(ids)}: {_named(tokenizer, ids)} {ids}"


def _shared_suffix(tokenizer: PreTrainedTokenizerBase, requests: Sequence[str], template: Template) -> str:
    """Last tokens that all requests share in their template."""
    template = template_of(tokenizer, template)
    encodings = encode_texts(tokenizer, requests, [None] * len(requests), template=template)
    rows = [encoding.ids.tolist() for encoding in encodings]
    shared = 0
    while shared < min(map(len, rows)) and len({row[-1 - shared] for row in rows}) == 1:
        shared += 1
    ids = rows[0][len(rows[0]) - shared :]
    return f"{shared}: {_named(tokenizer, ids)} {ids}" if shared else "none: requests end with different tokens"


def _named(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(list(ids))) or _NOT_AVAILABLE


def _small_files(checkpoint: Checkpoint, allow_pickle: bool) -> Path:
    """The checkpoint's folder; from the Hub, only configuration and tokenizer are downloaded."""
    if checkpoint.is_local:
        return Path(checkpoint.source)
    revision = checkpoint.revision or "main"
    if folder := hub.cached_snapshot(*checkpoint.hub_place):
        return folder
    files = hub.hub_checkpoint_files(*checkpoint.hub_place, allow_pickle=allow_pickle)
    return hub.download_snapshot(checkpoint.source, revision, replace(files, weights=()), checkpoint.subfolder)


def _tokenizer(folder: Path, given: Path | None) -> PreTrainedTokenizerBase:
    place = given or nearest_tokenizer(folder)
    if place is None:
        raise BadInput(f"no tokenizer in {folder} or its parents: name a folder or repository as `tokenizer`.")
    return open_tokenizer(place)
