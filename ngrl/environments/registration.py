"""The environments ngrl adds to gymnasium's registry.

| id | what |
| --- | --- |
| `ngrl/LunarLander-v2` | gymnasium's lander with the observation bounds of version 2 |
| `ngrl/Chain-v0` | a chain of states whose Q values are known (`toy.chain_q_values`) |
| `ngrl/Identity-v0` | name the digit that is shown (`toy.identity_q_values`) |
| `ngrl/IdentityBox-v0` | the same with a continuous action |
| `ngrl/MaskedCartPole-v1` | CartPole-v1 of which position and angle are seen, no velocity |
| `ngrl/HoaglandToy-v0` | a walk that had better stay at the origin (`toy.hoagland_return`) |
| `MinAtar/Breakout-v1` and so on | MinAtar's games (`minatar_games.Game`); those of v0 have all six actions |
"""

from typing import Any

import gymnasium


def register() -> None:
    """Register ngrl's environments; those already registered are left as they are."""
    _register("ngrl/LunarLander-v2", "lunar_lander:LunarLanderV2", 1000, reward_threshold=200)
    _register("ngrl/Chain-v0", "toy:Chain", 100)
    _register("ngrl/Identity-v0", "toy:Identity", 20)
    _register("ngrl/IdentityBox-v0", "toy:IdentityBox", 20)
    _register("ngrl/MaskedCartPole-v1", "masked_cartpole:MaskedCartPole", 500, reward_threshold=475)
    _register("ngrl/HoaglandToy-v0", "toy:HoaglandToy", 5)
    for game in ("asterix", "breakout", "freeway", "seaquest", "space_invaders"):
        for version in (0, 1):
            env_id = f"MinAtar/{game.title().replace('_', '')}-v{version}"
            _register(env_id, "minatar_games:Game", None, kwargs={"game": game, "use_minimal_action_set": version == 1})


def _register(env_id: str, entry_point: str, max_episode_steps: int | None, **settings: Any) -> None:
    if env_id not in gymnasium.registry:
        gymnasium.register(
            env_id, entry_point=f"ngrl.environments.{entry_point}", max_episode_steps=max_episode_steps, **settings
        )
