"""Shared parts of the benchmark programs: clocks by stage, the fits of a common script, one JSON line of output.

Imports nothing of the library: it runs in the peers' environments.
"""

import argparse
import contextlib
import importlib.metadata
import json
import resource
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

WIDTH, RIDGE = 50.0, 1e-5


class Clock:
    """CPU seconds of this process by stage."""

    def __init__(self):
        self.stages = defaultdict(float)
        self.began, self.wall = time.process_time(), time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, stage):
        start = time.process_time()
        yield
        self.stages[stage] += time.process_time() - start

    def tell(self, packages, **more):
        """The one line that the program prints."""
        line = {
            "cpu": time.process_time() - self.began,
            "wall": time.perf_counter() - self.wall,
            "rss_mb": peak(),
            "stages": dict(self.stages),
            "versions": {name: importlib.metadata.version(name) for name in packages},
            **more,
        }
        print("RESULT " + json.dumps(line), flush=True)


def peak():
    """Peak memory of this process in MB. `ru_maxrss` would include that of the parent."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    told = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(told[0]) / 1024 if told else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="folder of checkpoint-1, checkpoint-2, …")
    parser.add_argument("ids", type=Path, help="token ids and labels")
    parser.add_argument("--mode", default="padded")
    parser.add_argument("--only-activations", action="store_true")
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    told.checkpoints = sorted(told.folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    told.work = json.loads(told.ids.read_text())
    return told


def analyse(clock, layers, heads, labels, train):
    """Everything after the activations, as scripts do it: scikit-learn per site, mass-mean, HSIC and nHSIC per layer.

    layers [site, example, d], heads [site, example, d]; X is the first layer, as in arXiv:2402.19465.
    """
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    y = np.array(labels)
    accuracies = {}
    for name, sites in (("layers", layers), ("heads", heads)):
        with clock(f"fit {name}"):
            found = []
            for x in sites:
                scaler = StandardScaler().fit(x[:train])
                probe = LogisticRegression(C=1.0, max_iter=1000).fit(scaler.transform(x[:train]), y[:train])
                found.append(float((probe.predict(scaler.transform(x[train:])) == y[train:]).mean()))
            accuracies[name] = found
    with clock("mass mean"):
        for x in layers:
            gap = x[:train][y[:train] == 1].mean(0) - x[:train][y[:train] == 0].mean(0)
            unit = gap / np.linalg.norm(gap)
            (x @ unit).std()
    z = [zscored(torch.from_numpy(x[:train])) for x in layers]
    target = torch.from_numpy(y[:train]).float()[:, None]
    with clock("hsic"):
        for t in z:
            hsic(t, z[0]), hsic(t, target)
    with clock("nhsic"):
        for t in z:
            nhsic(t, z[0]), nhsic(t, target)
    return accuracies


def zscored(x):
    """As in arXiv:2402.19465: over the sample's own standard deviation."""
    return (x - x.mean(0)) / x.std(0)


def kernel(x):
    import torch

    square = (x * x).sum(1)
    distance = square[:, None] - 2 * x @ x.T + square[None]
    return torch.exp(-distance / (2 * WIDTH**2 * x.shape[1]))


def centred(x):
    import torch

    n = len(x)
    return kernel(x) @ (torch.eye(n, dtype=x.dtype) - torch.ones(n, n, dtype=x.dtype) / n)


def hsic(a, b):
    return ((centred(a) @ centred(b)).trace() / (len(a) - 1) ** 2).item()


def nhsic(a, b):
    import torch

    def normalised(x):
        k = centred(x)
        return k @ torch.linalg.inv(k + RIDGE * len(x) * torch.eye(len(x), dtype=x.dtype))

    return (normalised(a) @ normalised(b)).trace().item()


def padded(ids, size):
    """Batches in natural order, filled up on the right: token ids, mask, row and last place of each text."""
    import torch

    for start in range(0, len(ids), size):
        rows = ids[start : start + size]
        tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        yield tokens, mask, torch.arange(len(rows)), mask.sum(1) - 1
