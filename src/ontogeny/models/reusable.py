"""One model for all checkpoints of a trace: built once, then filled with the weights of the next."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ontogeny.errors import CheckpointError
from ontogeny.models import loading, weight_swap
from ontogeny.models import model as models
from ontogeny.models.model import Model
from ontogeny.models.weight_swap import TensorMap
from ontogeny.storage.files import content_digest


@dataclass
class ReusableModel:
    device: str
    dtype: torch.dtype
    allow_pickle: bool
    scores_vocabulary: bool = True
    """Whether `lm_head` is wanted: else its weights are left as they are, 37 % of a Pythia-70m."""
    own_memory: bool = False
    model: Model | None = None
    slots: TensorMap | None = None
    tokenizer: str | None = None
    """Digest of the files of the model's tokenizer."""

    def load(self, folder: Path, tokenizer: Path | None) -> tuple[Model, int]:
        """The checkpoint as a model, and how many models had to be built for it.

        A model that was given before is not valid any more: it may be the same one.

        Raises:
            CheckpointFault, BadInput: as `model.load`.
        """
        standing, known = self.model, self.slots
        # If anything fails below, what stands is half filled: it is no model then.
        self.model = self.slots = None
        if standing is None or known is None or not _can_load(known, folder):
            return self._built(folder, tokenizer), 1
        spared = set() if self.scores_vocabulary else weight_swap.unembedding_tensors(standing.network)
        if not self.own_memory:
            weight_swap.copy_to_own_memory(standing.network, leave_out=spared)
            self.own_memory = True
        weight_swap.load_into(standing.network, known, folder, leave_out=spared)
        self.model, self.slots = standing, known
        loading.check_finite_weights(standing.network, folder)
        found = tokenizer_digest(tokenizer or folder)
        if found != self.tokenizer:
            opened = loading.load_tokenizer(tokenizer or folder, standing.network)
            self.model, self.tokenizer = replace(standing, tokenizer=opened), found
        return self.model, 0

    def _built(self, folder: Path, tokenizer: Path | None) -> Model:
        self.model = models.load_model(
            folder, device=self.device, dtype=self.dtype, tokenizer=tokenizer, allow_pickle=self.allow_pickle
        )
        self.slots, self.own_memory = weight_swap.tensor_map(self.model.network, folder), False
        self.tokenizer = tokenizer_digest(tokenizer or folder)
        return self.model


def _can_load(known: TensorMap, folder: Path) -> bool:
    try:
        return weight_swap.is_compatible(known, folder)
    except CheckpointError:
        return False  # transformers may still read it; if not, its loader says what is wrong


def tokenizer_digest(folder: Path) -> str | None:
    """Changes with any file that decides how a text is cut."""
    files = [folder / name for name in (*loading._TOKENIZER_FILES, "special_tokens_map.json", "chat_template.jinja")]
    return (
        content_digest([file.read_bytes().hex() for file in files if file.is_file()])
        if folder.is_dir()
        else str(folder)
    )
