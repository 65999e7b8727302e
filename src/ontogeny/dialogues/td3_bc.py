"""TD3+BC: offline reinforcement learning of a planner whose actions have a fixed length (arXiv:2106.06860, arXiv:1802.09477).

Twin critics, delayed updates, targets with clipped noise that goes back to the sphere, and a pull of the planner towards the actions of the
data, as dialogue action tokens use it (arXiv:2406.11978).
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ontogeny.dialogues.action_tokens import ActionPlanner, to_sphere
from ontogeny.errors import BadInput


@dataclass(frozen=True, eq=False)
class Transitions:
    """Turns of dialogues: the state, the action, the reward that followed, and the state of the next turn."""

    states: Float[Tensor, "turn d"]
    actions: Float[Tensor, "turn action"]
    rewards: Float[Tensor, " turn"]
    following: Float[Tensor, "turn d"]
    """States of the next turns; any finite numbers after the last turn of a dialogue."""
    over: Bool[Tensor, " turn"]
    """True at the last turn of a dialogue."""

    def __len__(self) -> int:
        return len(self.states)


@dataclass(frozen=True)
class Td3Config:
    """Settings of the updates."""

    updates: int = 1500
    batch: int = 256
    discount: float = 0.99
    target_rate: float = 0.005
    """Share of the way that target networks go in an update."""
    noise: float = 0.2
    """Standard deviation of the noise on target actions, in lengths of an action."""
    noise_clip: float = 0.5
    delay: int = 2
    """Updates of the critics for each one of the planner."""
    critic_rate: float = 1e-3
    planner_rate: float = 3e-4
    alpha: float = 2.5
    """Weight of the value against the pull towards the data's actions, whose weight is 1."""
    width: int = 128
    """Of the critics' hidden layer."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("updates", "batch", "delay", "width"):
            if getattr(self, name) < 1:
                raise BadInput(f"`{name}` must be at least 1, got {getattr(self, name)}: choose a larger number.")
        for name in ("critic_rate", "planner_rate", "alpha", "target_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"`{name}` must be above 0, got {getattr(self, name)}: choose a positive number.")
        if not 0 <= self.discount <= 1 or min(self.noise, self.noise_clip) < 0:
            raise BadInput(
                "`discount` must lie between 0 and 1, and `noise` and `noise_clip` be at least 0, got "
                f"{self.discount}, {self.noise} and {self.noise_clip}."
            )


class TwinCritics(nn.Module):
    """Two estimates of the return of an action in a state, near .5 at first."""

    def __init__(self, states: int, actions: int, width: int) -> None:
        super().__init__()
        self.both = nn.ModuleList(
            nn.Sequential(
                nn.Linear(states + actions, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
            )
            for _ in range(2)
        )

    def forward(
        self, states: Float[Tensor, "turn d"], actions: Float[Tensor, "turn action"]
    ) -> Float[Tensor, "critic turn"]:
        """Both estimates."""
        inputs = torch.cat([states, actions], 1)
        return torch.stack([(critic(inputs)[:, 0] + 1) / 2 for critic in self.both])


def train_planner(
    planner: ActionPlanner,
    data: Transitions,
    config: Td3Config,
    on_update: Callable[[int, ActionPlanner, float], None] = lambda update, planner, loss: None,
) -> ActionPlanner:
    """A planner trained on the data, which starts as a copy of the given one.

    Args:
        on_update: Called with each update, the planner as it is then, and the critics' loss.

    Raises:
        BadInput: no transitions, parts of different lengths, numbers that are not finite, or critics that diverge.
    """
    _check(data)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        critics = TwinCritics(data.states.shape[1], data.actions.shape[1], config.width)
    actor, norm = copy.deepcopy(planner), planner.norm
    slow_actor, slow_critics = copy.deepcopy(actor), copy.deepcopy(critics)
    critic_steps = torch.optim.Adam(critics.parameters(), lr=config.critic_rate)
    actor_steps = torch.optim.Adam(actor.parameters(), lr=config.planner_rate)
    states, following = ((part - planner.mean) / planner.deviation for part in (data.states, data.following))
    for update in range(1, config.updates + 1):
        rows = torch.randint(len(data), (config.batch,), generator=generator)
        action = data.actions[rows]
        with torch.no_grad():
            noise = torch.randn(action.shape, generator=generator) * config.noise
            aimed = slow_actor(data.following[rows]) + norm * noise.clamp(-config.noise_clip, config.noise_clip)
            ahead = slow_critics(following[rows], to_sphere(aimed, norm)).amin(0)
            wanted = data.rewards[rows] + config.discount * ahead * ~data.over[rows]
        values = critics(states[rows], action / norm)
        loss = (values - wanted).square().mean()
        if not math.isfinite(loss.item()):
            raise BadInput(f"the critics diverged at update {update}: use a smaller `critic_rate`.")
        _step(critic_steps, loss)
        if update % config.delay == 0:
            chosen = actor(data.states[rows])
            value = critics(states[rows], chosen / norm)[0]
            weight = config.alpha / value.detach().abs().mean().clamp(min=1e-6)
            pull = ((chosen - action) / norm).square().mean()
            _step(actor_steps, pull - weight * value.mean())
            for fast, slow in ((actor, slow_actor), (critics, slow_critics)):
                _follow(fast, slow, config.target_rate)
        on_update(update, actor, loss.item())
    return actor


def join_transitions(parts: Sequence[Transitions]) -> Transitions:
    """All turns of several collections.

    Raises:
        BadInput: no collection.
    """
    if not parts:
        raise BadInput("`parts` must have at least one collection of turns, got none: collect dialogues first.")
    names = ("states", "actions", "rewards", "following", "over")
    return Transitions(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


@torch.no_grad()
def _follow(fast: nn.Module, slow: nn.Module, rate: float) -> None:
    for new, old in zip(fast.parameters(), slow.parameters(), strict=True):
        old.lerp_(new, rate)


def _check(data: Transitions) -> None:
    parts = (data.states, data.actions, data.rewards, data.following, data.over)
    if len({len(part) for part in parts}) != 1 or len(data) == 0:
        raise BadInput(
            f"the parts of `data` must be equally many and at least one turn, got {[len(part) for part in parts]}: collect dialogues first."
        )
    if not all(bool(part.isfinite().all()) for part in parts):
        raise BadInput("`data` must be finite, got NaN or infinity: check rewards and states.")
