"""Directions and prompts to steer with: noise, pickles, vectors of another width, headers that lie."""

from pathlib import Path

import torch

from ontogeny.storage.directions import DIRECTION_FORMAT
from ontogeny.storage.files import write_tensors
from tests.hostile.making import Case


def steered(content: bytes) -> Case:
    def make(place: Path) -> list[object]:
        (place / "d.safetensors").write_bytes(content)
        return ["steer", place / "model", "-d", place / "d.safetensors", "-p", "hi", "--tokens", 2]

    return make


def direction(vector: torch.Tensor | None = None, **change: object) -> Case:
    """A direction as we write it, but for one thing."""

    def make(place: Path) -> list[object]:
        told: dict[str, object] = {
            "format": DIRECTION_FORMAT,
            "site": "resid.1",
            "origin": "x",
            "scale": "raw",
            "position": "last",
        }
        told |= {"facts": {}, "sign": "", "tokenizer": ""} | change
        write_tensors(place / "d.safetensors", {"vector": torch.ones(32) if vector is None else vector}, told)
        return ["steer", place / "model", "-d", place / "d.safetensors", "-p", "hi", "--tokens", 2]

    return make


def prompts(content: bytes) -> Case:
    def make(place: Path) -> list[object]:
        (place / "prompts.txt").write_bytes(content)
        return [*direction()(place), "--prompts", place / "prompts.txt"]

    return make


CASES: dict[str, tuple[Case, str]] = {
    "direction of noise": (steered(b"\0" * 80), r"is not a direction"),
    "direction that is a pickle": (steered(b"cos\nsystem\n(S'touch pwned'\ntR."), r"is not a direction"),
    "direction of another width": (direction(torch.ones(31)), r"must have 32 dimensions, got 31"),
    "direction not finite": (direction(torch.full((32,), float("nan"))), r"must be a vector of finite numbers"),
    "direction of whole numbers": (direction(torch.ones(32, dtype=torch.int64)), r"its dtype is torch.int64"),
    "direction nowhere": (direction(site="../x"), r"is not a site"),
    "direction too deep": (direction(site="resid.99"), r"resid\.99"),
    "direction with facts of words": (direction(facts={"std": "x"}), r"one of its facts is not a number"),
    "direction with no facts": (direction(facts=3), r"its facts is 3"),
    "direction of another tokenizer": (direction(tokenizer="other"), r"fitted with another tokenizer"),
    "direction from above": (lambda p: ["steer", p / "model", "-d", "hub:../../x", "-p", "hi"], r"\.\./\.\./x"),
    "prompts of noise": (prompts(b"\xff\xfe\0"), r"must be UTF-8 text"),
    "alpha without end": (lambda p: [*direction()(p), "--alpha", "1e999"], r"--alpha must be finite numbers"),
}
