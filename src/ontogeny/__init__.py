"""Ontogeny: when, where and how concepts form inside a language model while it is trained.

    import ontogeny as on

The public API. Names are imported on first use, so `import ontogeny` loads neither torch nor transformers.

Models and texts     load_model, load_concept, Concept, Example, Answer, Lineage, Checkpoint, Stage
Reading              capture, fit_probe, read, load_gauges, Activations, FittedProbe, TokenScores, GaugePack, Site
Steering             steer, Add, Ablate, Cap, Clamp, Erase, Patch, RankOne, Reweight, SplitSoftmax, Zero, Edit, Direction
Jobs over a lineage  trace, evaluate, transfer, compare, monitor, lens, drift, embedding_geometry, audit, read_checkpoints
While it trains      TraceCallback, Watcher, doctor, Alert, AlertSettings
Their settings       TraceSettings, EvaluationSettings, TransferSettings, LensSettings, DriftSettings, GeometrySettings, StudyInputs,
                     ModelOptions
Results              Run, open_run, open_runs, Record
Everything else      list_plugins, BadInput
"""

import importlib
from typing import TYPE_CHECKING, Any

from ontogeny._version import __version__

if TYPE_CHECKING:
    from ontogeny.activations.activations import Activations, capture
    from ontogeny.alerts.detection import Alert, AlertSettings
    from ontogeny.data.concept import Concept
    from ontogeny.data.examples import Answer, Example
    from ontogeny.data.open_concept import load_concept
    from ontogeny.direction import Direction
    from ontogeny.embeddings.model_geometry import GeometrySettings
    from ontogeny.errors import BadInput
    from ontogeny.gauges.pack import GaugePack, load_gauges
    from ontogeny.interventions import Ablate, Add, Cap, Clamp, Erase, Patch, RankOne, Reweight, SplitSoftmax, Zero
    from ontogeny.jobs.audit.audit import audit
    from ontogeny.jobs.compare.compare import compare
    from ontogeny.jobs.compare.inputs import StudyInputs
    from ontogeny.jobs.drift.drift import drift
    from ontogeny.jobs.drift.plan import DriftSettings
    from ontogeny.jobs.evaluate.evaluate import evaluate
    from ontogeny.jobs.evaluate.plan import EvaluationSettings
    from ontogeny.jobs.geometry.geometry import embedding_geometry
    from ontogeny.jobs.lens.lens import lens
    from ontogeny.jobs.lens.plan import LensSettings
    from ontogeny.jobs.monitor.monitor import monitor
    from ontogeny.jobs.reading import read_checkpoints
    from ontogeny.jobs.trace.trace import trace
    from ontogeny.jobs.transfer.plan import TransferSettings
    from ontogeny.jobs.transfer.transfer import transfer
    from ontogeny.jobs.watch.callback import TraceCallback
    from ontogeny.jobs.watch.doctor import doctor
    from ontogeny.jobs.watch.watcher import Watcher
    from ontogeny.lineage import Checkpoint, Lineage, Stage
    from ontogeny.measurements.fitted_probe import FittedProbe, fit_probe
    from ontogeny.measurements.settings import TraceSettings
    from ontogeny.measurements.token_scores import TokenScores, read
    from ontogeny.models.loading import ModelOptions
    from ontogeny.models.model import Model, load_model
    from ontogeny.plugins import list_plugins
    from ontogeny.records import Record
    from ontogeny.sites import Site
    from ontogeny.steering.steer import Edit, steer
    from ontogeny.storage.run import Run, open_run, open_runs

_MODULES = {
    "ontogeny.activations.activations": ("Activations", "capture"),
    "ontogeny.data.concept": ("Concept",),
    "ontogeny.data.examples": ("Answer", "Example"),
    "ontogeny.data.open_concept": ("load_concept",),
    "ontogeny.direction": ("Direction",),
    "ontogeny.embeddings.model_geometry": ("GeometrySettings",),
    "ontogeny.errors": ("BadInput",),
    "ontogeny.gauges.pack": ("GaugePack", "load_gauges"),
    "ontogeny.interventions": (
        "Ablate",
        "Add",
        "Cap",
        "Clamp",
        "Erase",
        "Patch",
        "RankOne",
        "Reweight",
        "SplitSoftmax",
        "Zero",
    ),
    "ontogeny.jobs.audit.audit": ("audit",),
    "ontogeny.jobs.compare.compare": ("compare",),
    "ontogeny.jobs.compare.inputs": ("StudyInputs",),
    "ontogeny.jobs.drift.drift": ("drift",),
    "ontogeny.jobs.drift.plan": ("DriftSettings",),
    "ontogeny.jobs.evaluate.evaluate": ("evaluate",),
    "ontogeny.jobs.evaluate.plan": ("EvaluationSettings",),
    "ontogeny.jobs.geometry.geometry": ("embedding_geometry",),
    "ontogeny.jobs.lens.lens": ("lens",),
    "ontogeny.jobs.lens.plan": ("LensSettings",),
    "ontogeny.jobs.monitor.monitor": ("monitor",),
    "ontogeny.jobs.reading": ("read_checkpoints",),
    "ontogeny.jobs.trace.trace": ("trace",),
    "ontogeny.jobs.transfer.plan": ("TransferSettings",),
    "ontogeny.jobs.transfer.transfer": ("transfer",),
    "ontogeny.alerts.detection": ("Alert", "AlertSettings"),
    "ontogeny.jobs.watch.callback": ("TraceCallback",),
    "ontogeny.jobs.watch.doctor": ("doctor",),
    "ontogeny.jobs.watch.watcher": ("Watcher",),
    "ontogeny.lineage": ("Checkpoint", "Lineage", "Stage"),
    "ontogeny.measurements.fitted_probe": ("FittedProbe", "fit_probe"),
    "ontogeny.measurements.settings": ("TraceSettings",),
    "ontogeny.measurements.token_scores": ("TokenScores", "read"),
    "ontogeny.models.loading": ("ModelOptions",),
    "ontogeny.models.model": ("Model", "load_model"),
    "ontogeny.plugins": ("list_plugins",),
    "ontogeny.records": ("Record",),
    "ontogeny.sites": ("Site",),
    "ontogeny.steering.steer": ("Edit", "steer"),
    "ontogeny.storage.run": ("Run", "open_run", "open_runs"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [
    "Ablate",
    "Activations",
    "Add",
    "Alert",
    "AlertSettings",
    "Answer",
    "BadInput",
    "Cap",
    "Checkpoint",
    "Clamp",
    "Concept",
    "Direction",
    "DriftSettings",
    "Edit",
    "Erase",
    "EvaluationSettings",
    "Example",
    "FittedProbe",
    "GaugePack",
    "GeometrySettings",
    "LensSettings",
    "Lineage",
    "Model",
    "ModelOptions",
    "Patch",
    "RankOne",
    "Record",
    "Reweight",
    "Run",
    "Site",
    "SplitSoftmax",
    "Stage",
    "StudyInputs",
    "TokenScores",
    "TraceCallback",
    "TraceSettings",
    "TransferSettings",
    "Watcher",
    "Zero",
    "__version__",
    "audit",
    "capture",
    "compare",
    "doctor",
    "drift",
    "embedding_geometry",
    "evaluate",
    "fit_probe",
    "lens",
    "list_plugins",
    "load_concept",
    "load_gauges",
    "load_model",
    "monitor",
    "open_run",
    "open_runs",
    "read",
    "read_checkpoints",
    "steer",
    "trace",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'ontogeny' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
