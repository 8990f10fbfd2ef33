"""What `tools/compare_peers.py` compares: one row for an algorithm, an environment and a peer."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from peers.networks import NETWORKS
from peers.worker_protocol import Settings

ROOT = Path(__file__).resolve().parents[2]

# Short name: gymnasium's id, and the end of the gin files' names.
ENVIRONMENTS = {
    "cartpole": ("CartPole-v1", "cartpole_v1"),
    "pendulum": ("Pendulum-v1", "pendulum"),
    "lunar": ("LunarLander-v3", "lunar"),
    "hopper": ("Hopper-v5", "hopper"),
}


class Peer(NamedTuple):
    """A library, or a method of one."""

    name: str
    worker: str
    environment: str  # a name in `installation.REQUIREMENTS`; "" for ngrl's Python
    envs: tuple[int, ...] = ()  # what it steps together, 0 for no environments; () for what is asked for


PEERS = {
    "sb3": Peer("Stable-Baselines3", "sb3_worker.py", "torch"),
    "contrib": Peer("sb3-contrib", "sb3_worker.py", "torch"),
    "tianshou": Peer("Tianshou", "tianshou_worker.py", "torch"),
    "tfagents": Peer("TF-Agents", "tf_agents_worker.py", ""),
    "sbx": Peer("SBX", "sbx_worker.py", "sbx"),
    "rejax": Peer("rejax", "rejax_worker.py", "rejax", envs=(8,)),
    "egn_mse": Peer("Somax egn_mse", "somax_worker.py", "somax", envs=(0,)),
    "egn_mse_cg": Peer("Somax egn_mse_cg", "somax_worker.py", "somax", envs=(0,)),
    "lm": Peer("tf-levenberg-marquardt", "lm_worker.py", "lm", envs=(0,)),
    "kfac": Peer("kfac-jax", "kfac_jax_worker.py", "somax", envs=(0,)),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """ngrl against one peer.

    Attributes:
      name: Such as "trpo-cartpole-contrib".
      peer: A name in PEERS.
      settings: Shared by both sides; `num_envs` and `gin_file` are ngrl's.
      note: The settings, for readers.
    """

    name: str
    peer: str
    settings: Settings
    note: str

    @property
    def unit(self) -> int:
        """Environment steps of the shortest run: a batch, or what makes replay's updates worth timing."""
        if self.is_steps:
            return NETWORKS[self.settings.env_id].steps
        return self.settings.batch_steps if self.settings.is_on_policy else 512

    def bound(self, bindings: Sequence[str]) -> "Row":
        """The same with more bound on ngrl's side."""
        settings = dataclasses.replace(self.settings, bindings=(*self.settings.bindings, *bindings))
        return dataclasses.replace(self, settings=settings)

    @property
    def is_steps(self) -> bool:
        """Whether it compares steps of optimizers, which have no environments."""
        return self.settings.env_id in NETWORKS


# The peers' observations and rewards are as they come; ngrl's MuJoCo experiments bring them on a common scale.
_AS_THEY_COME = ("policy_agent.normaliser = None", "GeneralisedAdvantage.reward_normaliser = None")


def on_policy(
    algorithm: str, peer: str, note: str, shorts: tuple[str, ...] = ("cartpole", "pendulum"), **settings: Any
) -> list[Row]:
    """A row for each environment, with networks of [64, 64] tanh and batches of 2,048 steps."""
    rows = []
    for short in shorts:
        env_id, ending = ENVIRONMENTS[short]
        gin_file = str(ROOT / "gin" / f"{algorithm}_{ending}.gin")
        shared = Settings(algorithm, env_id, (64, 64), "tanh", gin_file=gin_file, **settings)
        text = f"[64, 64] tanh, 2,048 steps a batch, {note}"
        rows.append(Row(f"{algorithm}-{short}-{peer}", peer, shared, text))
    return rows


def replayed(algorithm: str, peer: str, note: str, shorts: tuple[str, ...] = ("cartpole", "lunar")) -> list[Row]:
    """A row for each environment, with networks of [256, 256] ReLU and one update an environment step."""
    rows = []
    for short in shorts:
        env_id, ending = ENVIRONMENTS[short]
        gin_file = str(ROOT / "gin" / f"{algorithm}_{ending}.gin")
        shared = Settings(algorithm, env_id, (256, 256), "relu", minibatch=128, gin_file=gin_file)
        text = f"[256, 256] ReLU, one update with a minibatch of 128 per environment step, {note}"
        rows.append(Row(f"{algorithm}-{short}-{peer}", peer, shared, text))
    return rows


def compiled(algorithm: str, gin_file: str, note: str, activation: str = "relu", **settings: int) -> Row:
    """A row against rejax, which has gymnax's CartPole: with ngrl's compiled one, networks of [64, 64]."""
    path = str(ROOT / "gin" / gin_file)
    shared = Settings(algorithm, "CartPole-v1", (64, 64), activation, gin_file=path, compiled=True, **settings)
    return Row(f"{algorithm}-cartpole-rejax", "rejax", shared, f"[64, 64], environments compiled on both sides, {note}")


def stepped(method: str, note: str) -> list[Row]:
    """A row for each network against a method of exact, Gauss-Newton or K-FAC steps."""
    return [
        Row(
            f"step-{name}-{method}",
            method,
            Settings(method, name, (), "", network.batch),
            f"B = {network.batch}, {note}",
        )
        for name, network in NETWORKS.items()
    ]


_CRITIC = "conjugate gradients on all states with at most {} iterations, critic of {} epochs in minibatches of {}"
ROWS = [
    *on_policy("trpo", "contrib", _CRITIC.format(15, 10, 128), minibatch=128, epochs=10),
    *on_policy(
        "trpo", "contrib", _CRITIC.format(15, 10, 128), ("hopper",), minibatch=128, epochs=10, bindings=_AS_THEY_COME
    ),
    # What Tianshou fixes: ten iterations, and a critic that sees the whole batch.
    *on_policy("trpo", "tianshou", _CRITIC.format(10, 5, "2,048"), minibatch=2_048, epochs=5, cg_iterations=10),
    *on_policy("npg", "tianshou", _CRITIC.format(10, 5, "2,048"), minibatch=2_048, epochs=5, cg_iterations=10),
    *on_policy("ppo", "sb3", "10 epochs in minibatches of 64", minibatch=64, epochs=10),
    *on_policy("ppo", "tfagents", "10 epochs of one update with the whole batch", minibatch=2_048, epochs=10),
    *on_policy("ppo", "sbx", "10 epochs in minibatches of 64", ("cartpole",), minibatch=64, epochs=10),
    compiled(
        "ppo",
        "ppo_cartpole_v1.gin",
        "tanh, 2,048 steps a batch, 10 epochs in minibatches of 64",
        "tanh",
        minibatch=64,
        epochs=10,
    ),
    compiled(
        "pqn",
        "baselines/pqn_cartpole_v1.gin",
        "ReLU and layer normalisation, 2,048 steps a batch, 4 epochs in minibatches of 128",
        minibatch=128,
        epochs=4,
    ),
    *replayed("dqn", "sb3", "Adam on both sides"),
    *replayed("dqn", "sbx", "Adam on both sides", ("cartpole",)),
    compiled(
        "dqn", "dqn_cartpole_v1.gin", "ReLU, one update with a minibatch of 128 per environment step", minibatch=128
    ),
    *replayed("ngdqn", "sb3", "natural gradient against the peer's Adam"),
    *stepped("egn_mse", "Cholesky on both sides"),
    *stepped("egn_mse_cg", "at most 20 iterations of conjugate gradients on both sides"),
    *stepped("lm", "Cholesky on both sides"),
    *stepped("kfac", "ngrl's exact step, at most 20 iterations of conjugate gradients, against K-FAC"),
]
