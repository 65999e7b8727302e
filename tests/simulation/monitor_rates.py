"""False alarms of a saved monitor on new negatives: the probe of all groups, with a threshold from the out-of-fold scores.

`make calibration` prints the table; the tests run one of its cells.
"""

import torch

from ontogeny import plugins
from ontogeny.metrics.separability import calibrated_fpr, threshold_at_fpr
from ontogeny.statistics.splits import cross_fit_folds
from tests.simulation.cross_fit_coverage import Situation

NEW_GROUPS = 3000
CELLS = [
    Situation(method, kind, groups, d, gap)
    for method in ("logistic", "mass_mean")
    for kind, groups in (("mixed", 60), ("mixed", 200), ("one", 100))
    for d in (30, 200, 500)
    for gap in (1.0, 2.5)
]


def false_alarms(situation: Situation, *, sets: int, fpr: float = 0.05, seed: int = 0) -> tuple[float, float, float]:
    """Mean rate of false alarms of the saved probe and its standard error; then that of the uncorrected threshold."""
    g = torch.Generator().manual_seed(seed)
    module = plugins.load_plugin("probes", situation.method)
    new, new_y, _ = situation.draw(g, NEW_GROUPS)
    rates = []
    for draw in range(sets):
        x, y, groups = situation.draw(g)
        folds = cross_fit_folds(groups, y, "binary", seed=draw)
        fits = module.fit_folds(x[None], y, folds, groups=groups, seed=draw)
        out_of_fold = fits.held_out_scores(x[None], folds)[0, ~y, 0]
        saved = fits.probe.scores(new[None, ~new_y])[0, :, 0]
        rates.append(
            [
                float((saved > threshold_at_fpr(out_of_fold, share)).float().mean())
                for share in (calibrated_fpr(len(out_of_fold), fpr), fpr)
            ]
        )
    shares = torch.tensor(rates)
    return float(shares[:, 0].mean()), float(shares[:, 0].std()) / sets**0.5, float(shares[:, 1].mean())


def monitor_table(sets: int = 60) -> str:
    """Rates of all cells at 5 %, as Markdown."""
    lines = [
        "| probe | labels of a group | negatives | examples per dimension | gap | false alarms at 5 % | without the correction |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in CELLS:
        rate, error, plain = false_alarms(cell, sets=sets)
        examples = cell.groups * (2 if cell.kind == "mixed" else 3)
        lines.append(
            f"| {cell.method} | {cell.kind} | {examples // 2} | {examples / cell.d:.1f} | {cell.gap:g} "
            f"| {rate:.1%} ± {error:.1%} | {plain:.1%} |"
        )
    return "\n".join(lines)
