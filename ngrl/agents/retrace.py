"""How replayed rewards become the targets of ACER's critic."""

from ngrl.checks import check_number
from ngrl.configurable import configurable


@configurable
class Retrace:
    """Retrace (Munos et al. 2016): `Q^ret = r + γ (ρ̄ (Q^ret′ − Q′) + V′)`, with ρ̄ = λ min(1, ρ^(1/d)).

    Args:
      gamma: The agent's discount factor γ.
      retrace_lambda: λ.
      reward_scale: Rewards are multiplied by this.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(self, gamma: float = 0.99, retrace_lambda: float = 1.0, reward_scale: float = 1.0):
        self.gamma = check_number("Retrace: gamma", gamma, "[0, 1]")
        self.retrace_lambda = check_number("Retrace: retrace_lambda", retrace_lambda, "[0, 1]")
        self.reward_scale = check_number("Retrace: reward_scale", reward_scale, "(0, inf)")
