"""Settings of a trace: the options that decide its numbers; saved in run.json and part of every unit's key."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from ontogeny import plugins
from ontogeny.errors import BadInput, unknown_name
from ontogeny.sites import expand_sites

ProbeProtocol = Literal["cross-fit", "single-split", "paper"]
DTYPE_NAMES = ("float32", "bfloat16", "float16")
KERNEL_NAMES = ("gaussian_50", "gaussian_median", "linear", "imq")
"""The kernels of `metrics.dependence`, listed here because that module loads torch."""


@dataclass(frozen=True)
class TraceSettings:
    sites: str = "resid,head"
    """Sites to read: patterns such as resid, head.3, mlp.2-5, neuron.-1, separated by commas."""
    fits: tuple[str, ...] = ("logistic", "mass_mean", "pca", "leace")
    """Probes for binary concepts and classes; numbers use ridge. A probe that a concept does not allow is left out."""
    kernels: tuple[str, ...] = ("gaussian_50", "gaussian_median")
    """Kernels of the dependence: published width and median width; linear and imq are optional."""
    protocol: ProbeProtocol = "cross-fit"
    """`cross-fit` tests every group once, by a probe fitted on the other folds; `single-split` holds out one share of the groups.
    `paper` is that of the tracing paper (arXiv:2402.19465): contiguous 80/20 split, z-scored over all rows, logistic C = 1,
    dependence on the first block's output at width 50. It leaks; see docs/gotchas.md."""
    seed: int = 0
    test_share: float = 0.3
    """Share of the groups that a single split holds out."""
    folds: int = 5
    """Folds of cross-fitting; fewer if a class has fewer groups."""
    resamples: int = 1000
    """Bootstrap resamples of the test groups."""
    permutations: int = 1000
    """Label permutations of every p."""
    dtype: str = "float32"
    truncate: bool = False
    """Cut texts longer than the context to their last tokens instead of raising an error."""
    share_prefixes: bool = False
    """Compute common prefixes of texts once. Results then depend on the other texts in their last digits."""
    untrained: bool = True
    """Measure a random initialisation as a baseline if the lineage has no step 0."""
    causal: bool = False
    """Ablate each concept's direction at the end of each stage and see whether its answers get worse. No part of a unit's key: a
    finished run can be asked afterwards."""
    planes: int = 0
    """Checkpoints, spread evenly, whose texts are read again for the picture of two classes in the plane of the last checkpoint's probe.
    No part of a unit's key."""
    texts: bool = True
    """Keep the beginnings of at most 120 texts of each concept in the run, for the table of a probe's errors. No part of a unit's key."""

    def __post_init__(self) -> None:
        if self.protocol not in get_args(ProbeProtocol):
            raise unknown_name("protocol", self.protocol, get_args(ProbeProtocol))
        if not 2 <= self.folds <= 20:
            raise BadInput(f"`folds` must lie between 2 and 20, got {self.folds}: 5 is usual.")
        if not 0 <= self.planes <= 12:
            raise BadInput(f"`planes` must lie between 0 and 12, got {self.planes}: 6 panels fit a page.")
        if self.dtype not in DTYPE_NAMES:
            raise unknown_name("dtype", self.dtype, DTYPE_NAMES)
        for name, given in (("fits", self.fits), ("kernels", self.kernels)):
            if isinstance(given, str):
                raise BadInput(f"`{name}` must be a list of names, got {given!r}: write [{given!r}].")
        for fit in self.fits:
            if fit not in plugins.list_plugins("probes"):
                raise unknown_name("probe", fit, plugins.list_plugins("probes"))
        for kernel in self.kernels:
            if kernel not in KERNEL_NAMES:
                raise unknown_name("kernel", kernel, KERNEL_NAMES)
        # Layers are checked once a model is open, parts now.
        expand_sites([pattern.split(".")[0] for pattern in self.sites.split(",")], layers=1, heads=1)
        if not -(2**62) < self.seed < 2**62:
            raise BadInput(f"`seed` must have at most 18 digits, got {self.seed}: choose a smaller one.")
        if not 0.05 <= self.test_share <= 0.9:
            raise BadInput(f"`test_share` must lie between 0.05 and 0.9, got {self.test_share}: 0.3 is usual.")
        if min(self.resamples, self.permutations) < 100:
            fewest = min(self.resamples, self.permutations)
            raise BadInput(f"`resamples` and `permutations` must be at least 100, got {fewest}: choose 1000.")


MEASURE_VERSION = 2
CAUSAL_CONTROLS = 50
"""Random directions of each ablation; beyond their number, p is the tail of their distribution."""

SETTINGS_OF_EARLIER_RUNS: Mapping[str, object] = {"folds": 5}
"""By name of a setting: its value in a run that was made before the setting was there."""
SETTINGS_OUTSIDE_KEYS = frozenset({"causal", "planes", "texts"})
"""Settings that add units and change none: a run may be continued with another value."""
_CROSS_FIT_VERSION = 4
"""Version of the folds and intervals of cross-fitting."""
_EARLIER_PROTOCOL = "default"
"""Name of `single-split` while it was the default."""


def settings_for_key(settings: TraceSettings) -> dict[str, object]:
    """The settings as they enter the names of units: without those that only repeat an earlier run."""
    absent = object()
    named = {k: v for k, v in asdict(settings).items() if k not in SETTINGS_OUTSIDE_KEYS}
    entries = {k: v for k, v in named.items() if SETTINGS_OF_EARLIER_RUNS.get(k, absent) != v}
    if settings.protocol == "single-split":
        entries["protocol"] = _EARLIER_PROTOCOL
    if settings.protocol == "cross-fit":
        entries["cross_fit"] = _CROSS_FIT_VERSION
    if settings.protocol == "paper":
        entries["split"] = "truncated"  # earlier runs rounded
    return entries


def settings_of_run(saved: Mapping[str, object]) -> dict[str, object]:
    """The settings in run.json, also those of an earlier version."""
    entries = {**SETTINGS_OF_EARLIER_RUNS, **saved}
    if entries.get("protocol", _EARLIER_PROTOCOL) == _EARLIER_PROTOCOL:
        entries["protocol"] = "single-split"
    return entries
