"""An entry of the activation cache is read back as it was stored; one that is damaged, or lies under another key, is none."""

import os
import random
from pathlib import Path

import pytest
import torch

from ontogeny.activations.activations import Activations
from ontogeny.activations.cache import ActivationCache
from ontogeny.sites import Site


@pytest.fixture
def cache(tmp_path: Path) -> ActivationCache:
    return ActivationCache(tmp_path, 10**9)


def entry(seed: int, dtype: torch.dtype = torch.float32) -> Activations:
    draw = torch.Generator().manual_seed(seed)
    return Activations(
        parts={"resid": torch.randn(2, 5, 8, generator=draw).to(dtype)},
        sites={"resid": (Site.parse("resid.0"), Site.parse("resid.1"))},
        inputs=torch.randn(5, 8, generator=draw).to(dtype),
        margin=None,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_entry_is_read_back(dtype: torch.dtype, cache: ActivationCache) -> None:
    cache.put("a", entry(1, dtype))
    found = cache.get("a")
    assert found is not None
    assert torch.equal(found.parts["resid"], entry(1, dtype).parts["resid"])
    assert found.sites == entry(1).sites


def test_flipped_bit_removes_the_entry(cache: ActivationCache) -> None:
    draw = random.Random(0)
    for _ in range(60):
        cache.put("a", entry(1))
        [path] = cache.folder.glob("*.safetensors")
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        found = cache.get("a")
        # A flip of white space or of an unused byte leaves everything as it was.
        assert found is None or torch.equal(found.parts["resid"], entry(1).parts["resid"])
        assert found is not None or not path.exists()


def test_swapped_entries_are_none(cache: ActivationCache) -> None:
    cache.put("a", entry(1))
    cache.put("b", entry(2))
    os.replace(cache.folder / "a.safetensors", cache.folder / "aside")
    os.replace(cache.folder / "b.safetensors", cache.folder / "a.safetensors")
    os.replace(cache.folder / "aside", cache.folder / "b.safetensors")
    assert cache.get("a") is None
    assert cache.get("b") is None
