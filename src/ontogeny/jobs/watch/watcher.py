"""Watcher of a plain training loop: measures concepts on the model in training, within a budget of time, and changes nothing of it.

    watcher = on.Watcher(model, tokenizer, ["truth"], out="runs/truth", checkpoints="out")
    for step, batch in enumerate(batches, 1):
        ...
        watcher.step(step)
    watcher.finish()

The run directory is that of `ontogeny.trace`: a later trace of the saved checkpoints joins it.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ontogeny.alerts.detection import Alert, AlertSettings, WatchedSeries, find_alerts
from ontogeny.alerts.series import SeriesReader
from ontogeny.alerts.transports import AlertSink, alert_sinks, wants_save
from ontogeny.dynamics.example_scores import keep_example_scores
from ontogeny.dynamics.summary import summarise_trace
from ontogeny.errors import BadInput
from ontogeny.jobs.inputs import as_concepts, output_folder, settings_and_options
from ontogeny.jobs.run_json import describe_run
from ontogeny.jobs.trace.execution import TraceExecution
from ontogeny.jobs.trace.executor import CheckpointExecutor
from ontogeny.jobs.trace.frozen import frozen_unit
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.jobs.trace.surface import audit_concepts, keep_surface_audits
from ontogeny.jobs.watch.inner_network import inner_network
from ontogeny.jobs.watch.live_plan import LiveSubject
from ontogeny.jobs.watch.pace import MeasurementPace
from ontogeny.jobs.watch.rollouts import RolloutBuffer, observed_reward, rollout_rows
from ontogeny.jobs.watch.undisturbed import TrainingDisturbed, undisturbed
from ontogeny.lineage import Checkpoint
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import Model, model_from_network, tokenizer_fingerprint
from ontogeny.models.stored_tensors import network_looks_untrained
from ontogeny.records import make_record
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ontogeny.data.concept import Concept
    from ontogeny.jobs.inputs import ConceptSources

_MOST_FAILURES = 3
"""Measurements in a row that may fail before no other one is tried."""
_LOG = logging.getLogger("ontogeny")


class Watcher:
    """Measures concepts on a model in training; made before the first step.

    Args:
        model: The network in training, or a wrapper of it (torch.compile, DDP, PEFT).
        tokenizer: Its tokenizer.
        concepts: One or several: names of plug-ins, files, data frames, or `Concept` objects.
        out: Run directory, new or of this training; by default a temporary one.
        budget: Time that watching may add to the training, by the wall and by the processor: 0.03 for 3 %.
        checkpoints: Folder in which the training saves its checkpoint-N; a later trace of it joins the run. By default `out` with
            `-checkpoints` behind it.
        stage: Name of the stage, as in the later trace: `pretrain` for a folder that is traced alone.
        settings: What is measured, and how; the data type must be that of the model.
        steps: Number of steps of the training, if known: then the first steps are measured more densely.
        alerts: Limits of the alerts.
        on_alert: Where alerts go: `terminal`, `log`, `trackio`, `wandb`, `command:…`, an address, a function; or several.

    Raises:
        BadInput: the model is unknown or sharded, a concept has no held-out texts, the budget is not between 0 and 1, or `out` holds
            another run.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: "PreTrainedTokenizerBase",
        concepts: "ConceptSources",
        out: str | Path | None = None,
        *,
        budget: float = 0.03,
        checkpoints: str | Path | None = None,
        stage: str = "pretrain",
        settings: TraceSettings | None = None,
        steps: int | None = None,
        alerts: AlertSettings | None = None,
        on_alert: str | AlertSink | Sequence[str | AlertSink] = "terminal",
    ) -> None:
        self.pace = MeasurementPace(budget, steps)
        self.sinks, self.save_on_alert = alert_sinks(on_alert), wants_save(on_alert)
        self.alert_settings = alerts or AlertSettings()
        self.run = Run(output_folder(out, "watch"))
        self.alerts: list[Alert] = []
        self.series: list[WatchedSeries] = []
        """As of the last measurement."""
        self.rollouts = RolloutBuffer()
        self.last_error = self.cost = ""
        self.failures = 0
        """Measurements in a row that failed."""
        self._begun = False
        self._is_main = _rank() == 0
        with self.pace.preparing():
            network = inner_network(model)  # on every process, so that none waits for one that refused the model
            if not hasattr(tokenizer, "model_max_length"):
                got = "none" if tokenizer is None else f"a {type(tokenizer).__name__}"
                raise BadInput(f"`tokenizer` must be that of the model, got {got}: give it.")
            if not isinstance(stage, str) or not stage.strip():
                raise BadInput(f"`stage` must be the name of a stage, got {stage!r}: name it as in the later trace.")
            settings, opened = _settings_of(network.dtype, settings), as_concepts(concepts)
            if self._is_main:
                self._prepare(network, tokenizer, opened, settings, checkpoints, stage)

    def _prepare(
        self,
        network: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        concepts: "Sequence[Concept]",
        settings: TraceSettings,
        checkpoints: str | Path | None,
        stage: str,
    ) -> None:
        """Open the run, and do all that is done once."""
        with undisturbed(network):
            self.model: Model = model_from_network(network, tokenizer)
            self._shape = _shape(self.model)
            folder = (
                Path(checkpoints) if checkpoints else self.run.folder.with_name(f"{self.run.folder.name}-checkpoints")
            )
            self.subject = LiveSubject.of(
                concepts,
                settings,
                lineage=folder.resolve().name,
                stage=stage,
                folder=folder,
                tokenizer=tokenizer_fingerprint(self.model),
            )
            self.model.sites(settings.sites)  # raises for a site that the model lacks
            plan = self.subject.plan(self.subject.checkpoint(0), network, saved=False)
            plan.open_run(self.run.folder)
            self.executor = CheckpointExecutor(
                plan, self.run, TraceExecution(_options(network, settings), freeze=True), floor=()
            )
            self.reader = SeriesReader(self.run)
            self._was_finished = self.run.exists() and bool(self.run.about.get("finished"))
            with run_lock(self.run.folder):
                self._begin(plan)

    def _begin(self, plan: TracePlan) -> None:
        """Write run.json and the surface baselines, once."""
        before = self.run.about if self.run.exists() else None
        self.described, audits = audit_concepts(plan, self.run, before)
        self._describe(plan, finished=False)
        keep_surface_audits(plan, self.run, audits)

    def _describe(self, plan: TracePlan, *, finished: bool, measured: bool = False) -> None:
        before = self.run.about if self.run.exists() else None
        about = describe_run(
            plan.lineage,
            {checkpoint: weights.bytes for checkpoint, weights in plan.weights.items()} if measured else {},
            self.described,
            settings=asdict(plan.settings),
            device=str(self.model.device.type),
            command=before.get("command") if before else None,
            source=str(self.subject.folder),
            before=before,
        )
        kept = {key: before[key] for key in ("parity", "audit", "failures") if key in before} if before else {}
        live = {"budget": self.pace.budget, "cost": self.pace.sentence(), "alerts": [a.line for a in self.alerts]}
        self.run.describe(about | kept | {"live": live, "finished": finished})

    def step(self, step: int, *, tokens: float | None = None, saved: str | Path | None = None) -> list[Alert]:
        """Measure after this step if it is due; returns the new alerts.

        Args:
            step: Steps of the optimizer so far; 0 before the first one.
            tokens: Training tokens so far.
            saved: Folder of the checkpoint of this step, if it was just saved.
        """
        if not self._is_main:
            return []
        self._begin_at(step)
        if self.failures >= _MOST_FAILURES or not self.pace.due(step):
            return []
        return self.measure(step, tokens=tokens, saved=saved)

    def _begin_at(self, step: int) -> None:
        """Remove the rows of later steps: they are of an attempt that this training replaces, as after a resume from a checkpoint.

        Raises:
            BadInput: the step is not a number, or the training begins anew and the run is that of a finished one.
        """
        if not isinstance(step, Integral) or step < 0:
            raise BadInput(f"`step` must be a number of steps from 0 on, got {step!r}: give that of the optimizer.")
        if self._begun:
            return
        stage = self.subject.stage
        later = {unit: h for unit, h in self.run.headers().items() if h["stage"] == stage and (h["step"] or 0) > step}
        if later and step == 0 and self._was_finished:
            last = max(header["step"] for header in later.values())
            raise BadInput(
                f"`out` must be new or of this training, got {self.run.folder}, a finished training of {last} steps: set another `out`, "
                "or remove the folder."
            )
        self._begun = True
        if not later:
            return
        steps = sorted({int(header["step"]) for header in later.values()})
        _LOG.warning("the training goes on at step %d: %d later measured steps are removed", step, len(steps))
        with run_lock(self.run.folder):
            for unit, header in later.items():
                self.run.drop(unit)
                for concept_unit in (frozen_unit, _rollouts_unit):
                    self.run.drop(concept_unit(header["concept"], header["stage"], header["checkpoint"]))

    def measure(self, step: int, *, tokens: float | None = None, saved: str | Path | None = None) -> list[Alert]:
        """Measure now, whatever the budget; arguments and result as `step`. A failure is logged, and never stops the training."""
        if not self._is_main:
            return []
        self._begin_at(step)
        _wait_for_device(self.model.device)
        new = list[Alert]()
        with self.pace.visiting(step):
            try:
                with undisturbed(self.model.network), run_lock(self.run.folder):
                    new = self._measure(step, tokens, Path(saved) if saved else None)
                self.failures = 0
            except TrainingDisturbed:
                raise
            except Exception as error:  # also of weights that are not numbers any more, or of a full disk
                self.failures, self.last_error = self.failures + 1, (str(error) or type(error).__name__).splitlines()[0]
                _LOG.warning("step %d is not measured: %s", step, self.last_error)
            for alert in new:
                for sink in self.sinks:
                    sink(alert)
            _wait_for_device(self.model.device)
        return new

    def _measure(self, step: int, tokens: float | None, saved: Path | None) -> list[Alert]:
        checkpoint, network = self.subject.checkpoint(step, tokens), self.model.network
        if (shape := _shape(self.model)) != self._shape:
            raise BadInput(
                f"the model must stay as it was before the first step, {self._shape}, got {shape}: make a new watcher after such a change."
            )
        plan = self._plan(checkpoint, saved)
        missing = [concept for concept in plan.concepts if not self.run.done(plan.units[checkpoint, concept.name])]
        if missing:
            self.executor.plan = plan
            self.executor.measure_loaded(
                checkpoint, self.model, untrained=step == 0 and network_looks_untrained(network)
            )
            self._describe(plan, finished=False, measured=True)
        self.series = self.reader.read([concept.name for concept in plan.concepts])
        self._keep_rollouts(plan, checkpoint.name)
        found = [alert for one in self.series for alert in find_alerts(one, self.alert_settings)]
        known = {(a.kind, a.concept, a.stage, a.checkpoint) for a in self.alerts}
        new = [a for a in found if (a.kind, a.concept, a.stage, a.checkpoint) not in known]
        self.alerts += new
        return [alert for alert in new if alert.checkpoint == checkpoint.name]

    def _plan(self, checkpoint: Checkpoint, saved: Path | None) -> TracePlan:
        """The plan of a measurement; of the weights in memory where the saved ones are unknown, as of an adapter without its base."""
        if saved is not None:
            try:
                return self.subject.plan(checkpoint, self.model.network, saved=True)
            except (BadInput, OSError) as error:
                _LOG.info("%s is measured in memory only: %s", checkpoint.name, error)
        return self.subject.plan(checkpoint, self.model.network, saved=False)

    def _keep_rollouts(self, plan: TracePlan, checkpoint: str) -> None:
        buffer = self.rollouts.take()
        if not buffer[1]:
            return
        place = next(c for c in plan.checkpoints if c.name == checkpoint)
        for concept, series in zip(plan.concepts, self.series, strict=False):
            site = series.points[-1].site
            try:
                rows = rollout_rows(
                    self.run, self.model, concept, checkpoint, place.stage, buffer, site, plan.settings.seed
                )
            except BadInput as error:
                rows = [make_record("rollout_share", torch.nan, n=0, concept=concept.name, reason=str(error))]
            unit = _rollouts_unit(concept.name, place.stage, checkpoint)
            if rows:
                self.run.keep(unit, CheckpointStamp.of(plan.lineage.name, unit, place).on(rows))

    def observe_rollouts(self, reward: Callable[..., Any]) -> Callable[..., Any]:
        """A reward function of TRL in place of `reward`, which it calls; the policy's texts are read at the next measurement."""
        return observed_reward(reward, self.rollouts)

    def add_rollouts(self, prompts: Sequence[str], completions: Sequence[str]) -> None:
        """Texts that the policy wrote, to be read at the next measurement (`rollout_share`); the last 64 are kept."""
        self.rollouts.add(prompts, completions)

    def finish(self, step: int | None = None, *, tokens: float | None = None, saved: str | Path | None = None) -> Run:
        """Measure the last step if it was not, relate the checkpoints, and say what the measurements cost.

        Args:
            step: The last step; by default the last measured one.
            tokens: Training tokens so far.
            saved: Folder of the checkpoint of this step, if it was saved.

        Returns:
            The run.
        """
        if not self._is_main:
            return self.run
        measured = self.pace.measured[-1:] or [-1]
        if step is not None and step > measured[0] and self.failures < _MOST_FAILURES:
            self.measure(step, tokens=tokens, saved=saved)
        with undisturbed(self.model.network), run_lock(self.run.folder):
            with self.pace.relating():
                summarised = bool(self.run.headers())
                if summarised:
                    self._relate()
            self._describe(self.executor.plan, finished=summarised)
        failed = f" {self.last_error}" if self.failures else ""
        self.cost = f"{self.pace.sentence()}{failed}"
        _LOG.info("ontogeny: %s", self.cost)
        return self.run

    def _relate(self) -> None:
        """Best sites, emergence and drift over the checkpoints so far."""
        plan = self.executor.plan
        name, settings = plan.lineage.name, plan.settings
        self.run.compact()
        summarise_trace(self.run, plan.designs, name, settings.seed)
        keep_example_scores(self.run, plan.designs, name, settings.seed, texts=settings.texts)

    @contextlib.contextmanager
    def watching(self, last_step: Callable[[], int]) -> Iterator["Watcher"]:
        """A block at whose end the watcher finishes, also after an error in it.

        Args:
            last_step: Gives the last step at the end of the block.
        """
        try:
            yield self
        finally:
            self.finish(last_step())


def _shape(model: Model) -> str:
    """Properties of a model that a training does not change; embeddings may grow."""
    network = model.network
    missing = (
        "" if len(network.get_input_embeddings().weight) >= len(model.tokenizer) else ", fewer embeddings than tokens"
    )
    blocks = sum(1 for _ in network.get_submodule(model.architecture.blocks).children())
    return f"{blocks} layers of {str(network.dtype).removeprefix('torch.')}{missing}"


def _rollouts_unit(concept: str, stage: str | None, checkpoint: str) -> str:
    return f"rollouts-{content_digest([concept, stage, checkpoint])}"


def _rank() -> int:
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _wait_for_device(device: torch.device) -> None:
    """Wait for what the training has queued, so that it does not count as time of a measurement."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _settings_of(dtype: torch.dtype, settings: TraceSettings | None) -> TraceSettings:
    """The settings, which must have the model's data type.

    Raises:
        BadInput: they have another one, or `causal` is set.
    """
    name = str(dtype).removeprefix("torch.")
    chosen, _ = settings_and_options(settings, ModelOptions(dtype=name) if settings is None else None)
    if chosen.dtype != name:
        raise BadInput(
            f"`dtype` must be that of the model in training, {name}, got {chosen.dtype}: set it so, weights are not copied."
        )
    if chosen.causal:
        raise BadInput(
            "`causal` must not be set for a model in training: set it when the saved checkpoints are traced."
        )
    return chosen


def _options(network: Any, settings: TraceSettings) -> ModelOptions:
    return ModelOptions(device=str(network.device), dtype=settings.dtype)
