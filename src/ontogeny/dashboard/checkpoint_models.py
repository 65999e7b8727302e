"""Models of a run's checkpoints: one in memory, refilled with the weights of the checkpoint that is asked for."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ontogeny.dashboard.selection import step_text
from ontogeny.errors import BadInput
from ontogeny.jobs.resumable import weight_identity
from ontogeny.jobs.trace.plan import trace_settings_of
from ontogeny.jobs.trace.reread import checkpoint_in_run
from ontogeny.lineage import Checkpoint, fetch_checkpoint
from ontogeny.lineage.fetch import FileDigests
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import Model
from ontogeny.models.reusable import ReusableModel
from ontogeny.storage.run import Run

_T = TypeVar("_T")
_MOST_RESULTS = 4096


class CheckpointModels:
    """The models of one run, used by one request at a time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.RLock()
        self._reusable: ReusableModel | None = None
        self._digests = FileDigests()
        self._loaded = ""
        """Fingerprint of the weights in memory."""
        self._results: dict[tuple[Any, ...], Any] = {}

    def computed(self, checkpoint: Checkpoint, key: tuple[Any, ...], compute: Callable[[Model], _T]) -> _T:
        """A result of a checkpoint's model, kept under the fingerprint of its weights.

        Raises:
            BadInput: the checkpoint cannot be read.
        """
        with self._lock:
            found = on_disk(checkpoint, self._run.folder)
            whole = (weight_identity(found, digests=self._digests).whole, *key)
            if whole not in self._results:
                if len(self._results) >= _MOST_RESULTS:
                    self._results.pop(next(iter(self._results)))
                self._results[whole] = compute(self._model(found, whole[0]))
            known: _T = self._results[whole]
            return known

    def fingerprint(self, checkpoint: Checkpoint) -> str:
        """Fingerprint of a checkpoint's weights, config and tokenizer.

        Raises:
            BadInput: the checkpoint cannot be read.
        """
        with self._lock:
            return weight_identity(on_disk(checkpoint, self._run.folder), digests=self._digests).whole

    def _model(self, checkpoint: Checkpoint, weights: str) -> Model:
        if self._reusable is None:
            options = replace(ModelOptions(), dtype=trace_settings_of(self._run).dtype)
            self._reusable = ReusableModel(options)
        if self._loaded != weights or self._reusable.model is None:
            self._loaded = ""
            self._reusable.load(fetch_checkpoint(checkpoint))
            self._loaded = weights
        assert self._reusable.model is not None
        return self._reusable.model

    def at(self, stage: str, step: str) -> Checkpoint:
        """The checkpoint at a place of the time axis, where one without a step is the end of its stage.

        Raises:
            BadInput: the run lists none there.
        """
        entries = self._run.about.get("lineage", {}).get("checkpoints") or []
        for entry in entries:
            own = entry.get("step")
            if (
                "source" in entry
                and (entry.get("stage") or "") == stage
                and ("." in step if own is None else step_text(own) == step)
            ):
                return checkpoint_in_run(self._run, entry["stage"], entry["name"])
        raise BadInput(f"the run lists no checkpoint at {stage} {step}: choose another one.")


def on_disk(checkpoint: Checkpoint, run: Path) -> Checkpoint:
    """The checkpoint, found from the folders above the run if its path was relative to another folder than the present one."""
    source = Path(checkpoint.source)
    if checkpoint.revision or source.is_absolute() or source.exists():
        return checkpoint
    places = (folder / source for folder in run.resolve().parents)
    return next((replace(checkpoint, source=str(place)) for place in places if place.is_dir()), checkpoint)
