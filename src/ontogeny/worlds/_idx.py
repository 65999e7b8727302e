"""Files in the IDX format, in which MNIST and its relatives are published: images and their labels."""

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput

_UNSIGNED_BYTES = 0x08


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes, packed by gzip or not.

    Raises:
        BadInput: the file cannot be read, is not IDX, holds other numbers than bytes, or is cut off.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise BadInput(f"{path} could not be read ({error}): download it again.") from None
    dims = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * dims
    if len(content) < start or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTES or not dims:
        raise BadInput(f"{path} must be an IDX file of unsigned bytes, as MNIST's are: name another one.")
    shape = struct.unpack(f">{dims}I", content[4:start])
    if len(content) - start != int(np.prod(shape, dtype=np.int64)):
        raise BadInput(
            f"{path} must hold {shape} bytes after its header, got {len(content) - start}: download it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_labelled_images(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """All images of a folder of IDX files, image × height × width, with their labels.

    Args:
        folder: Holds pairs such as `t10k-images-idx3-ubyte.gz` and `t10k-labels-idx1-ubyte.gz`.

    Raises:
        BadInput: there is no pair of files, or a pair lacks labels for some images.
    """
    pairs = [
        (path, path.with_name(path.name.replace("images-idx3", "labels-idx1")))
        for path in sorted(folder.glob("*images-idx3-ubyte*"))
    ]
    if not pairs:
        raise BadInput(
            f"{folder} must hold images in the IDX format (…-images-idx3-ubyte, .gz or not), got none: name another."
        )
    images, labels = zip(*((read_idx(a), read_idx(b)) for a, b in pairs), strict=True)
    for (path, _), own, classes in zip(pairs, images, labels, strict=True):
        if own.ndim != 3 or classes.ndim != 1 or len(own) != len(classes) or own.shape[1:] != images[0].shape[1:]:
            raise BadInput(
                f"{path} must hold images of one size with a label each, got arrays of {own.shape} and {classes.shape}: "
                "leave it out of the folder."
            )
    return np.concatenate(images), np.concatenate(labels)
