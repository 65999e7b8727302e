"""Steps equal PyTorch's optimisers; tangents and adjoints equal finite differences, for any settings."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.attribution.optimizer_steps import (
    OptimizerState,
    StepSettings,
    adjoint_step,
    consumed_gradient,
    initial_state,
    optimizer_step,
    tangent_step,
)

SIZE = 6


def rand(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def steps(draw: st.DrawFn) -> StepSettings:
    decay = draw(st.sampled_from([0.0, 0.1]))
    momentum = draw(st.sampled_from([0.0, 0.5, 0.9]))
    nesterov = draw(st.booleans()) and momentum > 0
    return StepSettings(
        draw(st.sampled_from(["sgd", "adamw"])),
        draw(st.integers(1, 5)),
        draw(st.sampled_from([0.01, 0.3])),
        torch.tensor([decay] * 4 + [0.0] * 2, dtype=torch.float64),
        momentum=momentum,
        dampening=0.0 if nesterov else draw(st.sampled_from([0.0, 0.3])),
        nesterov=nesterov,
        betas=draw(st.sampled_from([(0.9, 0.999), (0.8, 0.95)])),
        eps=draw(st.sampled_from([1e-8, 1e-3])),
        clip=draw(st.sampled_from([1.0, 0.4])),
    )


class Problem:
    """A smooth loss with a known gradient and Hessian."""

    def __init__(self, seed: int) -> None:
        self.a = rand(seed, SIZE, SIZE)
        self.b = rand(seed + 1, SIZE)

    def gradient(self, theta: torch.Tensor) -> torch.Tensor:
        return self.a.T @ torch.tanh(self.a @ theta) + self.b

    def hessian(self, theta: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return self.a.T @ ((1 - torch.tanh(self.a @ theta) ** 2) * (self.a @ v))


def state(seed: int) -> OptimizerState:
    return OptimizerState(rand(seed, SIZE), 0.1 * rand(seed + 1, SIZE), 0.1 * rand(seed + 2, SIZE).abs())


@given(steps(), st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_tangents_equal_finite_differences(step: StepSettings, seed: int) -> None:
    problem, at, direction, h = Problem(seed), state(seed + 10), state(seed + 20), 1e-6

    def after(s: OptimizerState) -> OptimizerState:
        return optimizer_step(s, problem.gradient(s.parameters), step)

    def shifted(sign: float) -> OptimizerState:
        return OptimizerState(
            at.parameters + sign * h * direction.parameters,
            at.first + sign * h * direction.first,
            at.second + sign * h * direction.second,
        )

    gradient = problem.gradient(at.parameters)
    tangent = tangent_step(direction, at, gradient, lambda v: problem.hessian(at.parameters, v), step)
    up, down = after(shifted(1)), after(shifted(-1))
    for exact, high, low in (
        (tangent.parameters, up.parameters, down.parameters),
        (tangent.first, up.first, down.first),
        (tangent.second, up.second, down.second),
    ):
        numeric = (high - low) / (2 * h)
        assert torch.allclose(exact, numeric, rtol=1e-4, atol=1e-4 * (1 + float(numeric.abs().max())))


@given(steps(), st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_adjoints_are_the_transpose_of_tangents(step: StepSettings, seed: int) -> None:
    problem, at = Problem(seed), state(seed + 10)
    tangent, adjoint = state(seed + 20), state(seed + 30)
    gradient = problem.gradient(at.parameters)

    def curvature(v: torch.Tensor) -> torch.Tensor:
        return problem.hessian(at.parameters, v)

    forward = tangent_step(tangent, at, gradient, curvature, step)
    backward = adjoint_step(adjoint, at, gradient, curvature, step)
    left, right = adjoint.dot(forward), backward.dot(tangent)
    assert abs(left - right) <= 1e-9 * (1 + abs(left))


@given(
    st.sampled_from(["sgd", "adamw"]),
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([0.0, 0.2]),
    st.booleans(),
    st.sampled_from([0.0, 0.1]),
    st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_steps_equal_those_of_pytorch(
    name: str, momentum: float, dampening: float, nesterov: bool, decay: float, seed: int
) -> None:
    nesterov = nesterov and momentum > 0
    dampening = 0.0 if nesterov else dampening
    problem, start = Problem(seed), rand(seed + 5, SIZE)
    parameter = torch.nn.Parameter(start.clone())
    if name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            [parameter], 0.05, momentum=momentum, dampening=dampening, nesterov=nesterov, weight_decay=decay
        )
    else:
        optimizer = torch.optim.AdamW([parameter], 0.05, betas=(0.9, 0.99), weight_decay=decay)
    ours = initial_state(start)
    for number in range(1, 5):
        step = StepSettings(
            name,  # type: ignore[arg-type]
            number,
            0.05,
            torch.full((SIZE,), decay, dtype=torch.float64),
            momentum=momentum,
            dampening=dampening,
            nesterov=nesterov,
            betas=(0.9, 0.99),
        )
        parameter.grad = problem.gradient(parameter.detach())
        optimizer.step()
        before, ours = ours, optimizer_step(ours, problem.gradient(ours.parameters), step)
        assert torch.allclose(parameter.detach(), ours.parameters, rtol=1e-12, atol=1e-12)
        if name == "adamw":
            recovered = consumed_gradient(before.first, ours.first, 0.9)
            assert torch.allclose(recovered, problem.gradient(before.parameters), rtol=1e-9, atol=1e-9)
