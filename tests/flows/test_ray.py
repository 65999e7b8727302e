"""The rows of a trace are the same from every executor, workers of Ray that are killed lose nothing, and GPUs are placed together."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ontogeny.concept import Concept
from ontogeny.lab.cluster import Cluster
from ontogeny.lab.settings import Settings
from ontogeny.lab.shards import Shard
from ontogeny.lab.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.run import Run
from tests.flows.lineages import rows, save_run, write
from tests.flows.test_trace import same, units

QUICK = Settings(sites="resid", resamples=100, permutations=100)
STEPS = {1: 0.0, 2: 4.0, 3: 8.0, 5: 8.0, 8: 9.0}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    save_run(home / "five", STEPS)
    write(home / "one.csv", rows(characters=36))
    write(home / "two.csv", rows(characters=44)[8:])
    return home


@pytest.fixture(scope="module")
def once(home: Path) -> Run:
    return traced(home, home / "once")


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One local cluster for all tests of this file, with four GPUs that only its book-keeping knows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'ontogeny[ray]'")
        ray.init(
            num_cpus=4,
            num_gpus=4,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 * 10**6,
            _temp_dir=str(tmp_path_factory.getbasetemp()),
        )
        yield ray
        ray.shutdown()


def traced(home: Path, out: Path, **how) -> Run:
    concepts = [Concept.from_file(home / name) for name in ("one.csv", "two.csv")]
    return trace(Lineage.open(home / "five"), concepts, out, QUICK, **how)


def test_every_executor_gives_the_same_rows(home, once, ray, tmp_path):
    on_ray = traced(home, tmp_path / "ray", cluster=Cluster(workers=2))
    for share in ("0/2", "1/2"):
        shares = traced(home, tmp_path / "shares", shard=Shard.parse(share))
    same(on_ray, once)
    same(shares, once)
    assert sorted(units(on_ray)) == sorted(units(once))
    assert {line["shard"] for line in on_ray.ledger()} == {"ray-0-of-2", "ray-1-of-2"}
    assert on_ray.about["finished"]
    assert on_ray.about["parity"]["holds"]
    assert not (on_ray.folder / "shards").exists()
