"""Ontogeny: when, where and how concepts form inside a language model while it is trained.

The public API. Names are imported on first use, so `import ontogeny` loads neither torch nor transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ontogeny._version import __version__

if TYPE_CHECKING:
    from ontogeny.data.concept import Concept
    from ontogeny.data.examples import Answer, Example
    from ontogeny.direction import Direction
    from ontogeny.errors import BadInput
    from ontogeny.interventions import Ablate, Add, Clamp, Erase, Patch, RankOne, Reweight, Zero
    from ontogeny.jobs.trace.trace import trace
    from ontogeny.lineage import Checkpoint, Lineage, Stage
    from ontogeny.measurements.settings import TraceSettings
    from ontogeny.models.loading import ModelOptions
    from ontogeny.models.model import Model, load_model
    from ontogeny.plugins import list_plugins
    from ontogeny.records import Record
    from ontogeny.sites import Site
    from ontogeny.steering.steer import Edit, steer
    from ontogeny.storage.run import Run, open_runs

_MODULES = {
    "ontogeny.data.concept": ("Concept",),
    "ontogeny.data.examples": ("Answer", "Example"),
    "ontogeny.direction": ("Direction",),
    "ontogeny.errors": ("BadInput",),
    "ontogeny.interventions": ("Ablate", "Add", "Clamp", "Erase", "Patch", "RankOne", "Reweight", "Zero"),
    "ontogeny.jobs.trace.trace": ("trace",),
    "ontogeny.lineage": ("Checkpoint", "Lineage", "Stage"),
    "ontogeny.measurements.settings": ("TraceSettings",),
    "ontogeny.models.loading": ("ModelOptions",),
    "ontogeny.models.model": ("Model", "load_model"),
    "ontogeny.plugins": ("list_plugins",),
    "ontogeny.records": ("Record",),
    "ontogeny.sites": ("Site",),
    "ontogeny.steering.steer": ("Edit", "steer"),
    "ontogeny.storage.run": ("Run", "open_runs"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [
    "Ablate",
    "Add",
    "Answer",
    "BadInput",
    "Checkpoint",
    "Clamp",
    "Concept",
    "Direction",
    "Edit",
    "Erase",
    "Example",
    "Lineage",
    "Model",
    "ModelOptions",
    "Patch",
    "RankOne",
    "Record",
    "Reweight",
    "Run",
    "Site",
    "Stage",
    "TraceSettings",
    "Zero",
    "__version__",
    "list_plugins",
    "load_model",
    "open_runs",
    "steer",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'ontogeny' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
