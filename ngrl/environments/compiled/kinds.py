"""Which environments there are compiled, under gymnasium's names."""

import difflib

from ngrl.environments.compiled.acrobot import Acrobot
from ngrl.environments.compiled.cartpole import CartPole, MaskedCartPole
from ngrl.environments.compiled.dynamics import Dynamics
from ngrl.environments.compiled.hoagland import HoaglandToy
from ngrl.environments.compiled.mountain_car import ContinuousMountainCar, MountainCar
from ngrl.environments.compiled.pendulum import Pendulum

KINDS: dict[str, type[Dynamics]] = {
    "CartPole-v0": CartPole,
    "CartPole-v1": CartPole,
    "Acrobot-v1": Acrobot,
    "MountainCar-v0": MountainCar,
    "MountainCarContinuous-v0": ContinuousMountainCar,
    "Pendulum-v1": Pendulum,
    "ngrl/MaskedCartPole-v1": MaskedCartPole,
    "ngrl/HoaglandToy-v0": HoaglandToy,
}


def dynamics_of(env_id: str) -> Dynamics:
    """The dynamics of an environment.

    Raises:
      ValueError: There are none; the message says which environments have some.
    """
    if env_id not in KINDS:
        near = difflib.get_close_matches(env_id, KINDS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"{env_id} has no compiled form{hint}; these have: {', '.join(KINDS)}")
    return KINDS[env_id]()
