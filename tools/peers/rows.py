"""What `tools/compare_peers.py` compares: one row for an algorithm, an environment and a peer."""

import dataclasses
from pathlib import Path

from peers.worker_protocol import Settings

ROOT = Path(__file__).resolve().parents[2]

# Short name: gymnasium's id, and the end of the gin files' names.
ENVIRONMENTS = {
    "cartpole": ("CartPole-v1", "cartpole_v1"),
    "pendulum": ("Pendulum-v1", "pendulum"),
    "lunar": ("LunarLander-v3", "lunar"),
}
# Peer: its worker, whether it runs under the peers' Python (otherwise ngrl's), and its name.
PEERS = {
    "sb3": ("sb3_worker.py", True, "Stable-Baselines3"),
    "contrib": ("sb3_worker.py", True, "sb3-contrib"),
    "tianshou": ("tianshou_worker.py", True, "Tianshou"),
    "tfagents": ("tf_agents_worker.py", False, "TF-Agents"),
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
        return self.settings.batch_steps if self.settings.is_on_policy else 512


def on_policy(algorithm: str, peer: str, note: str, **settings: int) -> list[Row]:
    """The rows of both environments, with networks of [64, 64] tanh and batches of 2,048 steps."""
    rows = []
    for short in ("cartpole", "pendulum"):
        env_id, ending = ENVIRONMENTS[short]
        gin_file = str(ROOT / "gin" / f"{algorithm}_{ending}.gin")
        shared = Settings(algorithm, env_id, (64, 64), "tanh", gin_file=gin_file, **settings)
        text = f"[64, 64] tanh, 2,048 steps a batch, {note}"
        rows.append(Row(f"{algorithm}-{short}-{peer}", peer, shared, text))
    return rows


def replayed(algorithm: str, note: str) -> list[Row]:
    """The rows of both environments, with networks of [256, 256] ReLU and one update an environment step."""
    rows = []
    for short in ("cartpole", "lunar"):
        env_id, ending = ENVIRONMENTS[short]
        gin_file = str(ROOT / "gin" / f"{algorithm}_{ending}.gin")
        shared = Settings(algorithm, env_id, (256, 256), "relu", minibatch=128, gin_file=gin_file)
        text = f"[256, 256] ReLU, one update with a minibatch of 128 per environment step, {note}"
        rows.append(Row(f"{algorithm}-{short}-sb3", "sb3", shared, text))
    return rows


_CRITIC = "conjugate gradients on all states with at most {} iterations, critic of {} epochs in minibatches of {}"
ROWS = [
    *on_policy("trpo", "contrib", _CRITIC.format(15, 10, 128), minibatch=128, epochs=10),
    # What Tianshou fixes: ten iterations, and a critic that sees the whole batch.
    *on_policy("trpo", "tianshou", _CRITIC.format(10, 5, "2,048"), minibatch=2_048, epochs=5, cg_iterations=10),
    *on_policy("npg", "tianshou", _CRITIC.format(10, 5, "2,048"), minibatch=2_048, epochs=5, cg_iterations=10),
    *on_policy("ppo", "sb3", "10 epochs in minibatches of 64", minibatch=64, epochs=10),
    *on_policy("ppo", "tfagents", "10 epochs of one update with the whole batch", minibatch=2_048, epochs=10),
    *replayed("dqn", "Adam on both sides"),
    *replayed("ngdqn", "natural gradient against the peer's Adam"),
]
