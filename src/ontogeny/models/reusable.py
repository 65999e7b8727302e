"""Reuse one model object for all checkpoints: build it once, then load each checkpoint's weights into it."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from ontogeny.errors import CheckpointError
from ontogeny.models.loading import (
    TOKENIZER_FILES,
    TOKENIZER_SETTINGS,
    ModelOptions,
    check_finite_weights,
    load_tokenizer,
)
from ontogeny.models.model import Model, open_model
from ontogeny.models.weight_swap import (
    TensorMap,
    copy_to_own_memory,
    is_compatible,
    load_into,
    tensor_map,
    unembedding_tensors,
)
from ontogeny.storage.files import content_digest


@dataclass
class ReusableModel:
    """A model that is refilled with the weights of one checkpoint after the other."""

    options: ModelOptions
    scores_vocabulary: bool = True
    """Whether logits are needed; else the weights of `lm_head` are not read (37 % of a Pythia-70m)."""
    own_memory: bool = False
    model: Model | None = None
    tensor_map: TensorMap | None = None
    tokenizer: str | None = None
    """Digest of the tokenizer's files."""

    def load(self, folder: Path) -> tuple[Model, int]:
        """The model of a checkpoint, and the number of models built for it (0 or 1).

        Invalidates the model returned by the previous call; both may be the same object.

        Raises:
            CheckpointError, BadInput: as `open_model`.
        """
        model, known = self.model, self.tensor_map
        # If loading fails below, the network is half filled and must not be used again.
        self.model = self.tensor_map = None
        if model is None or known is None or not _can_load(known, folder):
            return self._build(folder), 1
        skipped = set() if self.scores_vocabulary else unembedding_tensors(model.network)
        if not self.own_memory:
            copy_to_own_memory(model.network, leave_out=skipped)
            self.own_memory = True
        load_into(model.network, known, folder, leave_out=skipped)
        self.model, self.tensor_map = model, known
        check_finite_weights(model.network, folder)
        tokenizer = self.options.tokenizer_for(folder) or folder
        digest = tokenizer_digest(tokenizer)
        if digest != self.tokenizer:
            opened = load_tokenizer(tokenizer, model.network)
            self.model, self.tokenizer = replace(model, tokenizer=opened), digest
        return self.model, 0

    def _build(self, folder: Path) -> Model:
        self.model = open_model(folder, self.options)
        self.tensor_map, self.own_memory = tensor_map(self.model.network, folder), False
        self.tokenizer = tokenizer_digest(self.options.tokenizer_for(folder) or folder)
        return self.model


def _can_load(known: TensorMap, folder: Path) -> bool:
    try:
        return is_compatible(known, folder)
    except CheckpointError:
        return False  # transformers may still read it; if not, loading raises the proper error


def tokenizer_digest(folder: Path) -> str | None:
    """Digest of all files that decide how a text is tokenised; for a repository its name."""
    if not folder.is_dir():
        return str(folder)
    files = [folder / name for name in (*TOKENIZER_FILES, *TOKENIZER_SETTINGS)]
    return content_digest([[f.name, hashlib.sha256(f.read_bytes()).hexdigest()] for f in files if f.is_file()])
