"""Digits: handwritten images are read from IDX files, keep their classes, and are split into training and evaluation."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.worlds import digits


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty images of each of two digits; each has a brightness of its own, digit 1 a brighter one."""
    labels = np.arange(40) % 2
    images = np.zeros((40, 28, 28)) + (100 * labels + np.arange(40) + 1)[:, None, None]
    write_idx(tmp_path / "own-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "own-labels-idx1-ubyte.gz", labels)
    return tmp_path


def test_handwritten_images_keep_class_and_brightness_and_none_is_in_both_sets(folder: Path) -> None:
    world = digits.make(digits.Config(classes=2, images=str(folder)))
    training = digits.sample(world, np.random.default_rng(0), 2000)
    held_out = digits.evaluation(world)["absent"]
    seen = []
    for batch in (training, held_out):
        images = batch.inputs.reshape(len(batch), 12, 10)
        brightness = images[:, :10].mean((1, 2)) * 255
        assert np.array_equal(brightness > 90, batch.coordinates["digit"] == 1)
        assert not images[:, 10:].any()
        seen.append(set(brightness.round().astype(int)))
    assert seen[0].isdisjoint(seen[1])
    assert len(seen[0] | seen[1]) == 40


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "own-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x0d\x03")), "unsigned bytes"),
        (lambda f: (f / "own-images-idx3-ubyte.gz").write_bytes(b"no gzip"), "could not be read"),
        (lambda f: (f / "own-labels-idx1-ubyte.gz").unlink(), "could not be read"),
        (lambda f: write_idx(f / "own-labels-idx1-ubyte.gz", np.zeros(39)), "a label each"),
        (lambda f: write_idx(f / "own-labels-idx1-ubyte.gz", np.zeros(40)), "more than 5 images of each digit"),
        (
            lambda f: (f / "own-images-idx3-ubyte.gz").write_bytes(
                gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, 9, 9, 9))
            ),
            "after its header",
        ),
        (lambda f: [path.unlink() for path in f.iterdir()], "got none"),
    ],
    ids=["kind", "gzip", "no labels", "too few labels", "one class", "cut off", "empty"],
)
def test_a_damaged_folder_is_refused_in_one_line(folder: Path, damage, words: str) -> None:
    digits._handwritten.cache_clear()
    damage(folder)
    with pytest.raises(BadInput, match=words) as error:
        digits.make(digits.Config(classes=2, images=str(folder)))
    assert "\n" not in str(error.value)


def test_mnist_is_read(shared: Path) -> None:
    world = digits.make(digits.Config(classes=10, images=str(shared / "mnist")))
    assert [len(images) for images in world.shapes] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    mean = np.stack([images.mean(0) for images in world.shapes])
    batch = digits.evaluation(world)["absent"]
    nearest = ((batch.inputs.reshape(-1, 1, 12, 10) - mean) ** 2).sum((2, 3)).argmin(1)
    assert (nearest == batch.coordinates["digit"]).mean() > 0.7
