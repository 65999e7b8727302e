"""What must be alike before stages are compared, from tokenizers and configurations alone: no model is loaded.

Fine-tuned models come with phantom tokens, other BOS tokens, other templates and other end-of-instruction windows, and then part of a
difference between stages is none of training's doing (arXiv:2504.02904 compares two templates and two positions without saying so).
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from ontogeny.data.tokenization import encode_text
from ontogeny.errors import BadInput
from ontogeny.lineage import Checkpoint, checkpoint_files, hub
from ontogeny.models.loading import first_error_line, nearest_tokenizer, read_config, silence_transformers
from ontogeny.storage.files import content_digest

_NOT_AVAILABLE = "–"


@dataclass(frozen=True)
class StageInfo:
    """What is known of a stage before its weights are read."""

    stage: str
    checkpoint: str
    facts: Mapping[str, str]
    """What is compared, in words."""
    ids: tuple[tuple[int, ...], ...]
    """Of the very texts that are used."""


@dataclass(frozen=True)
class PreflightLine:
    """One thing that was looked at, stage by stage."""

    what: str
    values: Mapping[str, str]

    @property
    def differs(self) -> bool:
        """Whether that is more than the checkpoint's name, which always does."""
        return self.what != "checkpoint" and len(set(self.values.values())) > 1


@dataclass(frozen=True)
class PreflightReport:
    texts: int
    lines: tuple[PreflightLine, ...]
    cannot: tuple[str, ...]
    """What cannot be compared, and why."""

    @property
    def differing(self) -> list[PreflightLine]:
        return [line for line in self.lines if line.differs]

    def told(self) -> dict[str, Any]:
        """As run.json holds it."""
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
    tokenizer: Path | None = None,
    allow_pickle: bool = False,
) -> PreflightReport:
    """The sheets of all stages side by side; `requests` are those of the texts whose last tokens are an instruction's end.

    Raises:
        BadInput: a checkpoint, configuration or tokenizer that cannot be read.
    """
    silence_transformers()
    sheets = []
    for name, checkpoint in checkpoints.items():
        checkpoint_files(checkpoint, allow_pickle=allow_pickle)
        folder = _small_files(checkpoint, allow_pickle)
        made = _tokenizer(folder, tokenizer)
        sheets.append(describe_stage(name, checkpoint, read_config(folder), made, texts, requests))
    return compare_stage_info(sheets)


def describe_stage(
    name: str,
    checkpoint: Checkpoint,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    requests: Sequence[str] = (),
) -> StageInfo:
    inner = config.get_text_config()
    ids = tuple(tuple(tokenizer(text)["input_ids"]) for text in texts)
    front, back = _special_tokens_around(tokenizer)
    template = tokenizer.chat_template
    facts = {
        "family": str(config.model_type),
        "dimensions": str(inner.hidden_size),
        "blocks": str(inner.num_hidden_layers),
        "heads": str(inner.num_attention_heads),
        "rows of the embedding": str(inner.vocab_size),
        "tokens of the tokenizer": f"{len(tokenizer)} ({content_digest(sorted(tokenizer.get_vocab().items()))[:8]})",
        "put before a text": front,
        "put behind a text": back,
        "chat template": content_digest(template)[:8] if template else "none",
        "behind a request, by the template": _template_suffix(tokenizer) if template else _NOT_AVAILABLE,
        "end-of-instruction window": _shared_suffix(tokenizer, requests) if requests else _NOT_AVAILABLE,
        "padding": f"{tokenizer.padding_side}, {tokenizer.pad_token or 'no token of its own'}",
    }
    return StageInfo(name, checkpoint.name, facts, ids)


def compare_stage_info(sheets: Sequence[StageInfo]) -> PreflightReport:
    """What differs, and what it forbids."""
    first = sheets[0]
    lines = [PreflightLine("checkpoint", {s.stage: s.checkpoint for s in sheets})]
    lines += [PreflightLine(what, {s.stage: s.facts[what] for s in sheets}) for what in first.facts]
    lines.append(
        PreflightLine("token ids of the texts used", {s.stage: _token_id_difference(first, s) for s in sheets})
    )
    cannot = []
    for i, a in enumerate(sheets):
        for b in sheets[i + 1 :]:
            cannot += [f"{a.stage} and {b.stage}: {what}" for what in _impossible_studies(a, b)]
    return PreflightReport(len(first.ids), tuple(lines), tuple(cannot))


def _impossible_studies(a: StageInfo, b: StageInfo) -> list[str]:
    found = []
    for what in ("dimensions", "blocks"):
        if a.facts[what] != b.facts[what]:
            found.append(
                f"{a.facts[what]} and {b.facts[what]} {what}, so directions, states and neurons of one have no place in the other; "
                "each is still measured by itself"
            )
    if a.ids != b.ids:
        found.append(
            "their tokenizers cut the same texts otherwise, so states are not exchanged token by token; what is read at the end of a "
            "text still is compared"
        )
    if (a.facts["chat template"] == "none") != (b.facts["chat template"] == "none"):
        found.append(
            "only one has a chat template: what is read in the template that each was made with differs by the template too"
        )
    return found


def _token_id_difference(first: StageInfo, other: StageInfo) -> str:
    """How the ids differ from the first stage's, with the first example."""
    if other is first:
        return f"{len(first.ids)} texts"
    unlike = [i for i, (a, b) in enumerate(zip(first.ids, other.ids, strict=True)) if a != b]
    if not unlike:
        return f"{len(first.ids)} texts"
    a, b = first.ids[unlike[0]], other.ids[unlike[0]]
    steps = [step for step in difflib.SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes() if step[0] != "equal"]
    if all(step[0] == "insert" for step in steps):
        extra = [token for _, _, _, low, high in steps for token in b[low:high]]
        how = f"phantom tokens {extra} in text {unlike[0] + 1}"
    else:
        how = f"text {unlike[0] + 1} has {len(a)} tokens there and {len(b)} here"
    return f"{len(unlike)} of {len(first.ids)} differ: {how}"


def _special_tokens_around(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """What the tokenizer puts before and behind every text, BOS and EOS among them."""
    with_them, bare = tokenizer("a b")["input_ids"], tokenizer("a b", add_special_tokens=False)["input_ids"]
    for at in range(len(with_them) - len(bare) + 1):
        if with_them[at : at + len(bare)] == bare:
            return _named(tokenizer, with_them[:at]), _named(tokenizer, with_them[at + len(bare) :])
    return "other tokens", _NOT_AVAILABLE


def _template_suffix(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokens that the chat template puts behind the user's words."""
    try:
        made = encode_text(tokenizer, "tell me more", template=True)
    except BadInput as error:
        return f"not told: {error}"
    ids = made.ids[made.instruction_end :].tolist()
    return f"{len(ids)}: {_named(tokenizer, ids)} {ids}"


def _shared_suffix(tokenizer: PreTrainedTokenizerBase, requests: Sequence[str]) -> str:
    """The tokens that all requests end with, as they are put to the stage."""
    rows = [tokenizer(text)["input_ids"] for text in requests]
    shared = 0
    while shared < min(map(len, rows)) and len({row[-1 - shared] for row in rows}) == 1:
        shared += 1
    ids = rows[0][len(rows[0]) - shared :]
    return f"{shared}: {_named(tokenizer, ids)} {ids}" if shared else "none: requests end with tokens of their own"


def _named(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(list(ids))) or _NOT_AVAILABLE


def _small_files(checkpoint: Checkpoint, allow_pickle: bool) -> Path:
    """The checkpoint's folder; of one on the Hub, with configuration and tokenizer alone."""
    if checkpoint.is_local:
        return Path(checkpoint.source)
    revision = checkpoint.revision or "main"
    if folder := hub.cached_snapshot(checkpoint.source, revision, checkpoint.commit):
        return folder
    wanted = hub.hub_checkpoint_files(checkpoint.source, revision, checkpoint.commit, allow_pickle=allow_pickle)
    return hub.download_snapshot(checkpoint.source, revision, replace(wanted, weights=()))


def _tokenizer(folder: Path, given: Path | None) -> PreTrainedTokenizerBase:
    place = given or nearest_tokenizer(folder)
    if place is None:
        raise BadInput(f"no tokenizer in {folder} or above it. Name one with --tokenizer FOLDER_OR_REPO.")
    try:
        made: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place)
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        raise BadInput(
            f"no usable tokenizer in {place} ({first_error_line(error)}). Name one with --tokenizer FOLDER_OR_REPO."
        ) from None
    return made
