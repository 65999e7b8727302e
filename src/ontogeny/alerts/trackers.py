"""Trackers: a few numbers per concept for W&B, TensorBoard, Trackio and MLflow; everything else is in the run directory.

Names have a slash, not a dot: `ontogeny/truth/score`, `ontogeny/truth/frozen_score`, `ontogeny/truth/emerged`.
"""

import importlib
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ontogeny.alerts.detection import Alert, WatchedSeries
from ontogeny.errors import redact

TRACKERS = ("wandb", "trackio", "mlflow", "tensorboard")
_UNSAFE = re.compile(r"[^\w -]")
"""Characters of a concept's name that a tracker may refuse, or read as a level of its names."""
_LOG = logging.getLogger("ontogeny")


def tracker_values(series: Iterable[WatchedSeries], alerts: Sequence[Alert], stage: str) -> dict[str, float]:
    """The numbers of each concept at its last checkpoint; one that is not known is left out.

    Args:
        alerts: All alerts so far; `emerged` is 1 after an emergence without a later collapse.
    """
    values: dict[str, float] = {}
    for one in series:
        if not one.points or one.points[-1].stage != stage:
            continue
        name, last = f"ontogeny/{_UNSAFE.sub('_', one.concept)}", one.points[-1]
        events = [a.kind for a in alerts if a.concept == one.concept and a.kind in ("emerges", "collapses")]
        values[f"{name}/score"] = last.score.value
        values[f"{name}/frozen_score"] = last.frozen.value
        values[f"{name}/emerged"] = float(events[-1:] == ["emerges"])
    return {name: value for name, value in values.items() if not math.isnan(value)}


class TrackerLog:
    """Writes numbers to the trackers that a training reports to.

    Args:
        names: As `report_to` of a Trainer.
        folder: Output folder of the training, in which TensorBoard has its files.
    """

    def __init__(self, names: Iterable[str], folder: Path) -> None:
        self.names = [name for name in TRACKERS if name in set(names)]
        self.folder = folder
        self.board: Any = None

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write the numbers of a step; a tracker that fails is named in the log, and left out from then on."""
        for name in list(self.names):
            try:
                self._write(name, values, step)
            except Exception as error:  # another version, no run, no network
                _LOG.warning("%s takes no numbers of concepts: %s", name, redact(str(error)))
                self.names.remove(name)

    def _write(self, name: str, values: Mapping[str, float], step: int) -> None:
        if name == "tensorboard":
            for key, value in values.items():
                self._writer().add_scalar(key, value, step)
            self._writer().flush()
            return
        tracker = importlib.import_module(name)
        if name == "mlflow":
            if tracker.active_run() is not None:  # else it would begin another one
                tracker.log_metrics(dict(values), step=step)
        elif name == "wandb":
            # W&B refuses a step below its own, so that the step is a number beside the others, as with Trainer.
            tracker.log({**values, "train/global_step": step})
        else:  # Trackio draws either number as its axis
            tracker.log({**values, "train/global_step": step}, step=step)

    def _writer(self) -> Any:
        if self.board is None:
            from torch.utils.tensorboard import SummaryWriter

            runs = sorted((self.folder / "runs").glob("*"), key=lambda path: path.stat().st_mtime)
            given = os.environ.get("TENSORBOARD_LOGGING_DIR")  # where Trainer writes, if it is set
            place = Path(given).expanduser() if given else runs[-1] if runs else self.folder / "runs"
            self.board = SummaryWriter(log_dir=str(place))
        return self.board

    def close(self) -> None:
        """Close the files of TensorBoard."""
        if self.board is not None:
            self.board.close()
