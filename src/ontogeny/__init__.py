"""Ontogeny: when, where and how concepts form inside a language model while it is trained.

Everything public is here by name, and nothing heavy is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ontogeny.concept import Concept as Concept
    from ontogeny.errors import BadInput as BadInput
    from ontogeny.lab.trace import trace as trace
    from ontogeny.lineage import Checkpoint as Checkpoint
    from ontogeny.lineage import Lineage as Lineage
    from ontogeny.run import Run as Run
    from ontogeny.run import runs as runs
    from ontogeny.sites import Site as Site

__version__ = "0.1.0"

_HOMES = {
    "BadInput": "ontogeny.errors",
    "Checkpoint": "ontogeny.lineage",
    "Concept": "ontogeny.concept",
    "Lineage": "ontogeny.lineage",
    "Run": "ontogeny.run",
    "runs": "ontogeny.run",
    "Site": "ontogeny.sites",
    "trace": "ontogeny.lab.trace",
}
__all__ = ["BadInput", "Checkpoint", "Concept", "Lineage", "Run", "Site", "__version__", "runs", "trace"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `import ontogeny` and `ontogeny --help` load neither torch nor transformers.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ontogeny' has no attribute {name!r}")
