"""Callback for transformers' Trainer and TRL: concepts are measured while it trains, within a budget of time."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ontogeny.alerts.detection import AlertSettings
from ontogeny.alerts.trackers import TrackerLog, tracker_values
from ontogeny.alerts.transports import AlertSink, alert_sinks
from ontogeny.errors import BadInput
from ontogeny.jobs.inputs import as_concepts
from ontogeny.jobs.watch.inner_network import inner_network
from ontogeny.jobs.watch.pace import MeasurementPace
from ontogeny.jobs.watch.rollouts import RolloutBuffer, observed_reward
from ontogeny.jobs.watch.watcher import Watcher
from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from ontogeny.jobs.inputs import ConceptSources


class TraceCallback(TrainerCallback):
    """Measures concepts while a Trainer trains: `Trainer(…, callbacks=[on.TraceCallback(["truth"], out="runs/truth")])`.

    Args:
        concepts: One or several: names of plug-ins, files, data frames, or `Concept` objects.
        out: Run directory, new or of this training; a later trace of the Trainer's output folder joins it.
        budget: Time that watching may add to the training, by the wall and by the processor: 0.03 for 3 %.
        stage: Name of the stage, as in the later trace.
        settings: What is measured, and how; the data type must be that of the model.
        alerts: Limits of the alerts.
        on_alert: Where alerts go, see `Watcher`; `save` asks the Trainer to save a checkpoint now.
        tokenizer: By default that of the Trainer (`processing_class`).

    Raises:
        BadInput: a concept has no held-out texts, the budget is not between 0 and 1, or an action is unknown.
    """

    def __init__(
        self,
        concepts: "ConceptSources",
        out: str | Path | None = None,
        *,
        budget: float = 0.03,
        stage: str = "pretrain",
        settings: TraceSettings | None = None,
        alerts: AlertSettings | None = None,
        on_alert: str | AlertSink | Sequence[str | AlertSink] = "terminal",
        tokenizer: Any = None,
    ) -> None:
        MeasurementPace(budget)  # raises before a model is loaded
        alert_sinks(on_alert)
        self.concepts, self.out, self.budget, self.stage = as_concepts(concepts), out, budget, stage
        self.settings, self.alerts, self.on_alert, self.tokenizer = settings, alerts, on_alert, tokenizer
        self.rollouts = RolloutBuffer()
        self.watcher: Watcher | None = None
        self.trackers: TrackerLog | None = None
        self._postponed = False
        self._state: Any = None
        """That of the training under way."""

    @property
    def run(self) -> Run:
        """The run, once the training has begun.

        Raises:
            BadInput: it has not.
        """
        if self.watcher is None:
            raise BadInput(
                "the run must be read after the training has begun, and no Trainer has called this callback."
            )
        return self.watcher.run

    def observe_rollouts(self, reward: "Callable[..., Any]") -> "Callable[..., Any]":
        """A reward function in place of `reward`, which it calls; the policy's texts are read at the next measurement."""
        return observed_reward(reward, self.rollouts)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the run and measure the model before its first step; nothing where the callback was given twice."""
        if self._state is state:
            return
        _refuse_sharded(args)  # on every process, so that none waits for another
        if not state.is_world_process_zero:
            inner_network(kwargs.get("model"))
            return
        tokenizer = self.tokenizer or kwargs.get("processing_class")
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
        self.watcher = Watcher(
            kwargs.get("model"),
            tokenizer,
            self.concepts,
            self.out,
            budget=self.budget,
            checkpoints=args.output_dir,
            stage=self.stage,
            settings=self.settings,
            steps=state.max_steps or None,
            alerts=self.alerts,
            on_alert=self.on_alert,
        )
        self.watcher.rollouts = self.rollouts
        self.trackers = TrackerLog(args.report_to or (), Path(args.output_dir))
        self._state = state
        self._measure(state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure if it is due; where the Trainer is about to save, after that."""
        if self.watcher is None:
            return
        self._postponed = control.should_save or _may_save_later(args, state, control)
        if not self._postponed:
            self._measure(state, control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure a step that was just saved: its units are those of a trace of the checkpoint."""
        if self.watcher is None or not self._postponed:
            return
        self._postponed = False
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        self._measure(state, control, folder if folder.is_dir() else None)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the last step, relate the checkpoints, and say what it cost."""
        if self.watcher is None or self._state is None:
            return
        self._state = None
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        self.watcher.finish(
            state.global_step,
            tokens=_tokens(state),
            saved=folder if (folder / "trainer_state.json").is_file() else None,
        )
        if self.trackers is not None:
            self.trackers.close()
        print(f"ontogeny: {self.watcher.cost} The run is in {self.watcher.run.folder}.", file=sys.stderr)

    def _measure(self, state: Any, control: Any, saved: Path | None = None) -> None:
        assert self.watcher is not None
        before, failures = len(self.watcher.pace.measured), self.watcher.failures
        # Trackers close their runs when the training ends, so that its last step is measured before that.
        is_last = 0 < state.max_steps <= state.global_step and state.global_step not in self.watcher.pace.measured
        measure = self.watcher.measure if is_last else self.watcher.step
        alerts = measure(state.global_step, tokens=_tokens(state), saved=saved)
        if alerts and self.watcher.save_on_alert and saved is None:
            control.should_save = True
        if len(self.watcher.pace.measured) > before and self.watcher.failures <= failures:
            with self.watcher.pace.reporting():
                self._report(state.global_step)

    def _report(self, step: int) -> None:
        assert self.watcher is not None
        assert self.trackers is not None
        values = tracker_values(self.watcher.series, self.watcher.alerts, self.stage)
        self.trackers.write(values, step)


def _may_save_later(args: Any, state: Any, control: Any) -> bool:
    """Whether this step may be saved after the callbacks of its end: at the end of an epoch, or if its evaluation is the best so far."""
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    return (strategy == "epoch" and state.epoch == round(state.epoch or 0)) or (
        strategy == "best" and control.should_evaluate
    )


def _tokens(state: Any) -> float | None:
    """Training tokens so far, where the Trainer counts them."""
    return float(state.num_input_tokens_seen) or None


def _refuse_sharded(args: Any) -> None:
    """Raise BadInput where the Trainer shards weights, before any process waits for another."""
    plugin = getattr(args, "deepspeed_plugin", None)
    stage = getattr(plugin, "zero_stage", None) or 0
    if getattr(args, "fsdp", None):
        kind = "FSDP"
    elif stage == 3:
        kind = "DeepSpeed ZeRO-3"
    else:
        return
    raise BadInput(
        f"`model` must have whole weights on this process, got weights sharded by {kind}: take this callback out, and follow the folder "
        "of its checkpoints with `ontogeny watch`."
    )
