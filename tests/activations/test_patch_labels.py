"""Labels of image patches: painted patches have the hue, place and order of brightness that they were painted with."""

import pytest
import torch

from ontogeny.activations.patch_labels import HUES, PATCH_LABELS, patch_labels
from ontogeny.errors import BadInput

COLOURS = {
    "grey": (0.4, 0.4, 0.4), "red": (1, 0, 0), "yellow": (1, 1, 0), "green": (0, 1, 0), "cyan": (0, 1, 1), "blue": (0, 0, 1),
    "magenta": (1, 0, 1),
}  # fmt: skip


def test_painted_patches_have_their_labels() -> None:
    image = torch.full((1, 3, 8, 28), -0.2)
    for column, name in enumerate(HUES):
        image[0, :, 4 + column % 4, 4 * column : 4 * column + 2] = (
            2 * torch.tensor(COLOURS[name], dtype=torch.float)[:, None] - 1
        )
    image[0, :, :4] = torch.linspace(-1, 1, 28)
    labels = patch_labels(image, 4)
    assert tuple(labels) == PATCH_LABELS
    assert [HUES[value] for value in labels["hue"][0, 7:].tolist()] == list(HUES)
    assert labels["row"][0].tolist() == [0] * 7 + [1] * 7
    assert labels["column"][0].tolist() == [*range(7), *range(7)]
    upper = labels["brightness"][0, :7].tolist()
    assert upper == sorted(upper)
    assert (upper[0], upper[-1]) == (0, 3)


def test_rejects_a_patch_that_does_not_fit() -> None:
    with pytest.raises(BadInput, match="`patch` must divide"):
        patch_labels(torch.zeros(1, 3, 10, 8), 4)
