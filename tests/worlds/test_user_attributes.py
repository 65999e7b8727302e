"""User attributes: the posterior is calibrated, the judge knows answers, the mask covers the assistant's words and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.worlds import user_attributes as world_module
from ontogeny.worlds.user_attributes import ATTRIBUTES, EXPERTISE, FORMALITY

WORLD = world_module.make()
CHATS = world_module.labelled_dialogues(WORLD, np.random.default_rng(5), 600, [3])


def said(chat: tuple[tuple[str, str], ...]) -> list[str]:
    return [text for role, text in chat if role == "user"]


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.name)
def test_posterior_is_calibrated_and_the_assistant_follows_it(attribute: world_module.UserAttribute) -> None:
    place = ATTRIBUTES.index(attribute)
    shares = np.stack([world_module.posterior(attribute, said(chat)) for chat, _ in CHATS])
    classes = np.array([own[place] for _, own in CHATS])
    worded = np.array([(world_module.judge(WORLD, chat[-1][1]) or {})[attribute.name] for chat, _ in CHATS])
    assert shares.sum(1) == pytest.approx(1)
    for c in range(len(attribute.classes)):
        for lowest, highest in ((0, 0.4), (0.4, 0.8), (0.8, 1)):
            rows = (shares[:, c] > lowest) & (shares[:, c] <= highest)
            error = 4 * (shares[rows, c] * (1 - shares[rows, c])).sum() ** 0.5 / max(rows.sum(), 1)
            for hits in (classes == c, worded == c):
                assert abs(hits[rows].mean() - shares[rows, c].mean()) < error or rows.sum() < 10


def test_posterior_is_that_of_bayes() -> None:
    rotor, button = ("hey mend the rotor of my fan .", "dear mend the button of my fan .")
    assert world_module.posterior(EXPERTISE, [rotor, button]) == pytest.approx([0.4375, 0.125, 0.4375], abs=0.1)
    assert world_module.posterior(FORMALITY, [rotor, button]) == pytest.approx([0.5, 0.5])
    assert world_module.posterior(FORMALITY, [rotor]) == pytest.approx([0.8, 0.2])
    assert world_module.posterior(FORMALITY, []) == pytest.approx([0.5, 0.5])


def test_judge_knows_answers_and_nothing_else() -> None:
    assert world_module.judge(WORLD, "sure calibrate the lamp now .") == {"formality": 0, "expertise": 2}
    assert world_module.judge(WORLD, "press the lamp now gladly .") == {"formality": 1, "expertise": 0}
    broken = (
        "",
        "sure the lamp now .",
        "sure sure the lamp now .",
        "sure press the hey now .",
        "the lamp now sure press",
    )
    assert [world_module.judge(WORLD, text) for text in broken] == [None] * len(broken)


def test_mask_covers_the_words_of_the_assistant() -> None:
    ids = world_module.sample(WORLD, np.random.default_rng(2), 6)
    mask, names = world_module.answer_mask(WORLD, ids), np.array(list(WORLD.vocabulary))
    for row, own in zip(names[ids], mask, strict=True):
        role, wanted = "", []
        for word, after in zip(row, [*row[1:], ":"], strict=True):  # “this user” is no role
            role = word if word == "<s>" or after == ":" else role
            wanted.append(role == "assistant" and word not in ("assistant", ":"))
        assert own.tolist() == wanted


@pytest.mark.parametrize(
    "change",
    [{"rounds": 0}, {"labelled_rounds": 0}, {"asked": 1.0}, {"asked": -0.1}, {"dialogues": 3}, {"context": 40}],
)
def test_rejects_settings_without_a_dialogue(change: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="must be"):
        world_module.make(replace(world_module.Config(), **change))  # type: ignore[arg-type]
