"""Settings of the study of marked pretraining data."""

from dataclasses import dataclass

from ontogeny.errors import BadInput
from ontogeny.worlds import marked_register as register

PROBE_ADDRESSES = tuple(range(0, register.ADDRESS_WORDS, 2))
"""Words of addresses on which probes and steering vectors are fitted."""
OTHER_ADDRESSES = tuple(range(1, register.ADDRESS_WORDS, 2))
"""Those on which probes are tested and of which prompts consist; detoxifiers are trained on the first ones as well."""


@dataclass(frozen=True)
class Settings:
    shares: tuple[float, ...] = (0.0, 0.05, 0.1, 0.25)
    """Shares of the marked corpus in pretraining; the first must be 0, and `main` one of them."""
    main: float = 0.1
    """The share that is compared with none."""
    background: float = 0.01
    """Share of marked texts in the everyday corpus."""
    width: int = 32
    layers: int = 2
    heads: int = 4
    steps: int = 400
    """Steps of pretraining on the everyday corpus; a mixture has more, so that its everyday part is as long."""
    rate: float = 5e-3
    batch: int = 48
    probed: int = 320
    """Sentences on which probes are fitted, and as many on which they are tested."""
    steered_heads: int = 3
    alphas: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """Strengths of inference-time intervention, in standard deviations of the projections."""
    draws: int = 2
    """Random directions beside each intervention."""
    tune_steps: tuple[int, ...] = (2, 6, 18, 54)
    """Steps of fine-tuning at which it is measured: its strengths."""
    tune_rate: float = 5e-4
    tune_batch: int = 32
    prompts: int = 600
    """Prompts that are continued, and everyday texts whose cross-entropy is measured."""
    cost: float = 0.05
    """Price at which detoxifiers are compared: nats per token on everyday text."""


def check_settings(settings: Settings) -> None:
    """Check the settings before anything is trained.

    Raises:
        BadInput: settings under which a claim cannot be measured.
    """
    shares = settings.shares
    if len(shares) < 3 or shares[0] != 0 or list(shares) != sorted(set(shares)) or shares[-1] >= 1:
        raise BadInput(f"`shares` must be at least three ascending shares from 0 to below 1, got {shares}.")
    if settings.main not in shares[1:]:
        raise BadInput(f"`main` must be one of the shares above 0, {shares[1:]}, got {settings.main}.")
    if not 0 <= settings.background < 1:
        raise BadInput(f"`background` must be at least 0 and below 1, got {settings.background}.")
    if settings.width < 1 or settings.layers < 1 or settings.heads < 1 or settings.width % settings.heads:
        raise BadInput(
            f"`layers` and `heads` must be at least 1 and `width` a multiple of `heads`, got {settings.layers}, {settings.heads} and "
            f"{settings.width}."
        )
    if not 1 <= settings.steered_heads <= settings.layers * settings.heads:
        raise BadInput(
            f"`steered_heads` must be between 1 and {settings.layers * settings.heads}, the heads of the model, got "
            f"{settings.steered_heads}."
        )
    for name in ("alphas", "tune_steps"):
        values = getattr(settings, name)
        if not values or list(values) != sorted(set(values)) or values[0] <= 0:
            raise BadInput(f"`{name}` must be ascending and above 0, got {values}.")
    if settings.probed < 40 or settings.prompts < 2 or settings.draws < 2:
        raise BadInput(
            f"`probed` must be at least 40, and `prompts` and `draws` at least 2, got {settings.probed}, {settings.prompts} and "
            f"{settings.draws}."
        )
    if settings.cost <= 0 or settings.rate <= 0 or settings.tune_rate <= 0:
        raise BadInput(
            f"`cost`, `rate` and `tune_rate` must be above 0, got {settings.cost}, {settings.rate} and {settings.tune_rate}."
        )
    if min(settings.steps, settings.batch, settings.tune_batch) < 1:
        raise BadInput(
            f"`steps`, `batch` and `tune_batch` must be at least 1, got {settings.steps}, {settings.batch} and {settings.tune_batch}."
        )
