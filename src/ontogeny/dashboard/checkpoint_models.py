"""Models of a run's checkpoints: one in memory, refilled with the weights of the checkpoint that is asked for."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ontogeny.dashboard.selection import step_text
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.errors import BadInput
from ontogeny.jobs.resumable import weight_identity
from ontogeny.jobs.trace.digests import read_digests
from ontogeny.jobs.trace.plan import trace_settings_of
from ontogeny.jobs.trace.reread import checkpoint_in_run, on_disk
from ontogeny.lineage import Checkpoint, Lineage, fetch_checkpoint
from ontogeny.lineage.fetch import FileDigests
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import Model
from ontogeny.models.reusable import ReusableModel
from ontogeny.storage.run import Run

_T = TypeVar("_T")
_MOST_RESULTS = 4096


class CheckpointModels:
    """The models of one run, used by one request at a time.

    Args:
        run: The run.
        lineage: Where checkpoints are that the run names at places which are gone or remote.
    """

    def __init__(self, run: Run, lineage: Lineage | None = None) -> None:
        self._run, self._lineage = run, lineage
        self._lock = threading.RLock()
        self._reusable: ReusableModel | None = None
        self._digests = FileDigests()
        self._traced = read_digests(run.folder).known
        self._loaded = ""
        """Fingerprint of the weights in memory."""
        self._results: dict[tuple[Any, ...], Any] = {}

    def computed(self, checkpoint: Checkpoint, key: tuple[Any, ...], compute: Callable[[Model], _T]) -> _T:
        """A result of a checkpoint's model, kept under the fingerprint of its weights.

        Raises:
            BadInput: the checkpoint cannot be read.
        """
        return self.results_of(checkpoint).computed(key, compute)

    def results_of(self, checkpoint: Checkpoint) -> "CheckpointResults":
        """The results of a checkpoint as its weights are now; for one request, since the weights may be written again.

        Raises:
            BadInput: the checkpoint cannot be read.
        """
        with self._lock:
            here = on_disk(checkpoint, self._run.folder)
            return CheckpointResults(self, here, weight_identity(here, digests=self._digests).whole)

    def fingerprint(self, checkpoint: Checkpoint) -> str:
        """Fingerprint of a checkpoint's weights, config and tokenizer.

        Raises:
            BadInput: the checkpoint cannot be read.
        """
        return self.results_of(checkpoint).weights

    def computed_with(
        self, checkpoint: Checkpoint, weights: str, key: tuple[Any, ...], compute: Callable[[Model], _T]
    ) -> _T:
        """A result under a known fingerprint."""
        with self._lock:
            if (weights, *key) not in self._results:
                self.keep(weights, key, compute(self._model(checkpoint, weights)))
            known: _T = self._results[weights, *key]
            return known

    def keep(self, weights: str, key: tuple[Any, ...], result: Any) -> None:
        """Add a result that was computed beside another one."""
        with self._lock:
            if len(self._results) >= _MOST_RESULTS:
                self._results.pop(next(iter(self._results)))
            self._results[weights, *key] = result

    def known(self, weights: str, key: tuple[Any, ...]) -> Any:
        """A result if it was computed, else None."""
        return self._results.get((weights, *key))

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

        It is that of the run; of the lineage, if there is one and the run names a place that is gone or remote.

        Raises:
            BadInput: no checkpoint is at that place, or the lineage's weights differ from those that were traced.
        """
        listed = self._listed(stage, step)
        if listed is None or (self._lineage is not None and not _is_here(listed, self._run.folder)):
            given = self._in_lineage(stage, step)
            if given is not None:
                self._check_traced(listed, given)
                return given
        if listed is None:
            raise BadInput(f"the run lists no checkpoint at {stage} {step}: choose another one.")
        return listed

    def _listed(self, stage: str, step: str) -> Checkpoint | None:
        for entry in self._run.about.get("lineage", {}).get("checkpoints") or []:
            if "source" in entry and (entry.get("stage") or "") == stage and _is_at(entry.get("step"), step):
                return checkpoint_in_run(self._run, entry["stage"], entry["name"])
        return None

    def _in_lineage(self, stage: str, step: str) -> Checkpoint | None:
        known = () if self._lineage is None else self._lineage.checkpoints
        return next((one for one in known if one.stage == stage and _is_at(one.step, step)), None)

    def _check_traced(self, listed: Checkpoint | None, given: Checkpoint) -> None:
        """Raise BadInput if a weight file in the lineage is not the one whose digest the run keeps under the name of the checkpoint."""
        if listed is None or not given.is_local:
            return
        place = Path(listed.source).parts
        for name, (*_, digest) in self._traced.items():
            file, here = Path(name), Path(given.source) / Path(name).name
            if file.parent.parts[-len(place) :] == place and here.is_file() and self._digests.of(here) != digest:
                raise BadInput(
                    f"`lineage` must hold the weights that were traced, and {here} has others: give the lineage of this run.",
                    argument="lineage",
                )


class CheckpointResults:
    """Results of one checkpoint with one fingerprint of its weights."""

    def __init__(self, models: CheckpointModels, checkpoint: Checkpoint, weights: str) -> None:
        self._models, self._checkpoint, self.weights = models, checkpoint, weights

    def computed(self, key: tuple[Any, ...], compute: Callable[[Model], _T]) -> _T:
        """A result of the checkpoint's model, computed once.

        Raises:
            BadInput: the checkpoint cannot be read.
        """
        return self._models.computed_with(self._checkpoint, self.weights, key, compute)

    def keep(self, key: tuple[Any, ...], result: Any) -> None:
        """Add a result that was computed beside another one."""
        self._models.keep(self.weights, key, result)

    def known(self, key: tuple[Any, ...]) -> Any:
        """A result if it was computed, else None; does not wait for what is computed."""
        return self._models.known(self.weights, key)


def models_of(shown: ShownRun) -> CheckpointModels:
    """The models of a shown run, which live as long as the dashboard."""
    return shown.tool("models", lambda: CheckpointModels(shown.run, shown.lineage))


def _is_here(checkpoint: Checkpoint, run: Path) -> bool:
    return checkpoint.is_local and Path(on_disk(checkpoint, run).source).exists()


def _is_at(own: int | None, step: str) -> bool:
    """Whether a step is that of an address, in which the end of a stage has a half."""
    return "." in step if own is None else step_text(own) == step
