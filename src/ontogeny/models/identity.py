"""Identity of a checkpoint beside its weights: the config and the tokenizer files, which decide its numbers too."""

from pathlib import Path

from ontogeny.lineage import Checkpoint, weight_files
from ontogeny.lineage.fetch import adapter_base, small_file_ids
from ontogeny.models.loading import TOKENIZER_FILES, TOKENIZER_SETTINGS, saved_tokenizer
from ontogeny.models.reusable import tokenizer_digest
from ontogeny.storage.files import content_digest

_WITHOUT_EFFECT = ("_name_or_path", "transformers_version")
"""Settings of a config.json that no number depends on."""


def config_and_tokenizer_digest(checkpoint: Checkpoint, tokenizer: str | Path | None = None) -> str:
    """Digest of the config and of the tokenizer files with which a checkpoint is read; on the Hub from metadata only.

    Args:
        tokenizer: A folder or repository in place of the checkpoint's own tokenizer.

    Raises:
        CheckpointError, BadInput: the checkpoint cannot be read.
    """
    own = tokenizer_digest(Path(tokenizer)) if tokenizer else own_tokenizer_digest(checkpoint)
    return content_digest([_config_digest(checkpoint), own])


def _config_digest(checkpoint: Checkpoint) -> str:
    base = adapter_base(checkpoint)
    if base is not None:
        return _config_digest(base)
    if not checkpoint.is_local:
        return content_digest(small_file_ids(checkpoint, ["config.json"]))
    config = weight_files.read_json(weight_files.config_folder(Path(checkpoint.source)) / "config.json")
    return content_digest({name: value for name, value in config.items() if name not in _WITHOUT_EFFECT})


def own_tokenizer_digest(checkpoint: Checkpoint) -> str | None:
    """Digest of the checkpoint's own tokenizer, else of the folder above it or of an adapter's base model; None without one."""
    if checkpoint.is_local:
        folder = saved_tokenizer(Path(checkpoint.source))
        if folder is not None:
            return tokenizer_digest(folder)
    elif files := small_file_ids(checkpoint, (*TOKENIZER_FILES, *TOKENIZER_SETTINGS)):
        return content_digest(files)
    base = adapter_base(checkpoint)
    return own_tokenizer_digest(base) if base is not None else None
