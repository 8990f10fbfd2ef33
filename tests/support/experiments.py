"""The experiments that the tests of faults run: every agent, small and short."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
GIN = ROOT / "gin"

_OFF_POLICY = ("OffPolicyLoop.warmup_steps=64", "OffPolicyLoop.batch_size=16", "OffPolicyLoop.jit_compile=False")
_RECIPE = (
    "dqn_agent.average_update=@SoftUpdate()",
    "dqn_agent.average_acts=True",
    "Dual.momentum=0.9",
    "DqnAgent.multi_step=@QLambda()",
    "QLambda.num_steps=3",
    "QNetwork.layer_norm=True",
    "OffPolicyLoop.updates_per_step=2",
    "NaturalGradient.damping=@LevenbergMarquardt()",
    "NaturalGradient.max_kl=@radius/PolynomialDecay()",
    "radius/PolynomialDecay.initial_learning_rate=0.02",
    "radius/PolynomialDecay.decay_steps=500",
)
_ON_POLICY = ("OnPolicyLoop.batch_size=64", "OnPolicyLoop.jit_compile=False")
_REPLAY = (
    "TrajectoryReplayLoop.num_steps=16",
    "TrajectoryReplayLoop.warmup_steps=64",
    "TrajectoryReplayLoop.jit_compile=False",
)
_CRITIC = ("Critic.epochs=1", "ActorNetwork.hidden_layers=(8,)", "ValueNetwork.hidden_layers=(8,)")
_STATEFUL = (
    "policy_agent.normaliser=@ObservationNormaliser",
    "GeneralisedAdvantage.reward_normaliser=@RewardNormaliser()",
)


def said_before(path: Path) -> list[str]:
    """The files that a file to be included follows, one of which says what the scope is for that it binds."""
    return [str(GIN / "base/npg.gin")] if path.stem in ("lunar_natural", "mujoco_walker2d") else []


class Agent(NamedTuple):
    """An agent's gin file, and what makes it small.

    Attributes:
      continuous: whether it takes continuous actions too.
      env_id: the environment on which it is killed.
    """

    gin_file: str
    bindings: tuple[str, ...]
    continuous: bool = True
    env_id: str = "CartPole-v1"


#: A new agent is a line here.
AGENTS = {
    "ngdqn": Agent("ngdqn_cartpole_v1", (*_OFF_POLICY, "QNetwork.hidden_layers=(8,)", *_RECIPE), continuous=False),
    "dqn": Agent(
        "dqn_cartpole_v1",
        (*_OFF_POLICY, "QNetwork.hidden_layers=(8,)", "DqnAgent.target_update=@SoftUpdate()"),
        continuous=False,
    ),
    "pqn": Agent(
        "baselines/pqn_cartpole_v1",
        ("OnPolicyLoop.batch_size=64", "OnPolicyLoop.jit_compile=False", "PqnAgent.batch_size=32", "PqnAgent.epochs=1"),
        continuous=False,
    ),
    "npg": Agent("npg_cartpole_v1", (*_ON_POLICY, *_CRITIC, *_STATEFUL), env_id="LunarLander-v3"),
    "trpo": Agent(
        "trpo_cartpole_v1",
        (*_ON_POLICY, *_CRITIC, *_STATEFUL, "actor/ConjugateGradient.warm_start=True"),
        env_id="Pendulum-v1",
    ),
    "acktr": Agent("acktr_cartpole_v1", (*_ON_POLICY, *_CRITIC, *_STATEFUL)),
    "ppo": Agent("ppo_cartpole_v1", (*_ON_POLICY, *_CRITIC, *_STATEFUL, "ClippedUpdate.epochs=1")),
    "nac": Agent("nac_cartpole_v1", _ON_POLICY),
    "acer": Agent(
        "acer_cartpole_v1",
        (*_REPLAY, "ActorNetwork.hidden_layers=(8,)", "QNetwork.hidden_layers=(8,)"),
        env_id="Pendulum-v1",
    ),
    "recurrent": Agent(
        "trpo_masked_cartpole",
        (*_ON_POLICY, *_CRITIC, *_STATEFUL, "ActorNetwork.recurrent=4", "OnPolicyAgent.sequence_length=2"),
    ),
}
ENVIRONMENTS = {"CartPole-v1": False, "LunarLander-v3": False, "Pendulum-v1": True}  # whether actions are continuous


#: Imports the environments called `test/...`.
FAULTY = Path(__file__).with_name("faulty.gin")


def arguments(agent: str, env_id: str, root_dir: object, *bindings: str, steps: int = 400) -> list[str]:
    """Arguments of `ngrl.launch` for a short run of an agent."""
    gin_file, small, *_ = AGENTS[agent]
    if ENVIRONMENTS.get(env_id):  # ACER's critic of continuous actions
        small = tuple(binding.replace("QNetwork.", "StochasticDuelingNetwork.") for binding in small)
    bound = [f"Environment.env_id={env_id!r}", "Environment.num_envs=4", "Evaluation.episodes=1"]
    bound += [f"run.num_env_steps={steps}", "run.checkpoint_every=100"]
    chosen = [f"--gin_bindings={binding}" for binding in (*bound, *small, *bindings)]
    if env_id.startswith("test/"):
        chosen += [f"--gin_file={FAULTY}", "--allow_gin_import=faulty_environments"]
    return [f"--gin_file={GIN / gin_file}.gin", f"--root_dir={root_dir}", *chosen]
