"""Chat template of a checkpoint: that of a file beside its lineage, else its tokenizer's own."""

from pathlib import Path

from ontogeny.data.templates import template_text
from ontogeny.errors import BadInput
from ontogeny.lineage import Checkpoint, fetch_checkpoint
from ontogeny.models.loading import nearest_tokenizer, open_tokenizer

_TEMPLATE_FILE = "chat_template.jinja"
"""Beside the lineage file: the template of a lineage whose tokenizers have none."""


def lineage_chat_template(checkpoint: Checkpoint, tokenizer: str | Path | None = None) -> tuple[str, str]:
    """The text of the chat template in which a checkpoint is talked to, and whose it is.

    Args:
        tokenizer: Folder of a tokenizer, if the checkpoint has none.

    Raises:
        BadInput: neither the lineage nor the tokenizer has a chat template.
    """
    place = Path(checkpoint.source)
    for folder in () if checkpoint.revision else (place, *list(place.parents)[:3]):
        if (folder / "lineage.toml").is_file() and (folder / _TEMPLATE_FILE).is_file():
            text = (folder / _TEMPLATE_FILE).read_text(encoding="utf-8").removesuffix("\n")
            return text, "the template of the lineage"
    saved = Path(tokenizer) if tokenizer else nearest_tokenizer(fetch_checkpoint(checkpoint))
    opened = None if saved is None else open_tokenizer(saved)
    if opened is None or not opened.chat_template:
        raise BadInput(
            "the model must have a chat template for a conversation, and its tokenizer has none: give one in Jinja as `template`.",
            argument="template",
        )
    return template_text(opened, True), "the template of the tokenizer"
