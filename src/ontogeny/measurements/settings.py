"""How a trace is made: the options that decide its numbers, saved in run.json and part of every unit's key."""

from dataclasses import dataclass
from typing import Literal, get_args

from ontogeny import plugins
from ontogeny.errors import BadInput, unknown_name
from ontogeny.sites import expand_sites

ProbeProtocol = Literal["default", "paper"]
DTYPE_NAMES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class TraceSettings:
    sites: str = "resid,head"
    """Where to read: patterns such as resid, head.3, mlp.2-5, neuron.-1, separated by commas."""
    fits: tuple[str, ...] = ("logistic", "mass_mean", "pca", "leace")
    """Fits for binary concepts and classes; numbers are fitted by ridge.
    A fit that a concept cannot have (pca without pairs) is left out."""
    kernels: tuple[str, ...] = ("gaussian_50", "gaussian_median")
    """Kernels of the dependence: the published width and the median width; linear and imq by choice."""
    protocol: ProbeProtocol = "default"
    """`paper`: the tracing paper's own (arXiv:2402.19465) to compare with its numbers: contiguous 80/20, z-scored over all rows,
    logistic C = 1, dependence on the first block's output at width 50. It leaks; see docs/gotchas.md."""
    seed: int = 0
    test_share: float = 0.3
    """Share of the groups that is held out."""
    resamples: int = 1000
    """Bootstrap resamples of the test groups."""
    permutations: int = 1000
    """Label permutations behind every p."""
    dtype: str = "float32"
    truncate: bool = False
    """Cut texts longer than the context to their last tokens, instead of refusing them."""
    share_prefixes: bool = False
    """Compute what texts share at their beginning once. The numbers then depend on what else is read, in their last digits."""
    untrained: bool = True
    """Measure a random initialisation as a floor, where the lineage has no step 0."""

    def __post_init__(self) -> None:
        if self.protocol not in get_args(ProbeProtocol):
            raise unknown_name("protocol", self.protocol, get_args(ProbeProtocol))
        if self.dtype not in DTYPE_NAMES:
            raise unknown_name("dtype", self.dtype, DTYPE_NAMES)
        for fit in self.fits:
            if fit not in plugins.list_plugins("probes"):
                raise unknown_name("probe", fit, plugins.list_plugins("probes"))
        from ontogeny.metrics.dependence import KERNELS  # torch: not before it is needed

        for kernel in self.kernels:
            if kernel not in KERNELS:
                raise unknown_name("kernel", kernel, KERNELS)
        # Which layers there are is known once a model is open; that a part is none, already now.
        expand_sites([pattern.split(".")[0] for pattern in self.sites.split(",")], layers=1, heads=1)
        if not -(2**62) < self.seed < 2**62:
            raise BadInput(f"the seed {self.seed} is too large. Choose one of at most 18 digits.")
        if not 0.05 <= self.test_share <= 0.9:
            raise BadInput(
                f"a test share of {self.test_share} leaves one side too small. Choose one between 0.05 and 0.9."
            )
        if min(self.resamples, self.permutations) < 100:
            raise BadInput("intervals and p-values need at least 100 resamples and permutations. Choose 1000.")


MEASURE_VERSION = 2
