"""Worker: ngrl, from a gin file and bindings, built as `ngrl.training.experiment.run` builds it."""

import copy
import statistics
from typing import Any

from worker_protocol import (
    EPSILON,
    REPLAY_CAPACITY,
    TARGET_PERIOD,
    WARMUP_STEPS,
    Run,
    Settings,
    limit_tensorflow,
    now,
    serve,
)

# Which gin parameters hold what the settings name, by algorithm.
_ON_POLICY = {
    "num_envs": ["Environment.num_envs"],
    "batch_steps": ["OnPolicyLoop.batch_size"],
    "hidden": ["ActorNetwork.hidden_layers", "ValueNetwork.hidden_layers"],
    "activation": ["ActorNetwork.activation", "ValueNetwork.activation"],
}
_NATURAL = {
    **_ON_POLICY,
    "cg_iterations": ["actor/ConjugateGradient.max_iterations"],
    "epochs": ["Critic.epochs"],
    "minibatch": ["Critic.batch_size"],
}
# Peers train PPO's critic together with its policy.
_PPO = {
    **_ON_POLICY,
    "epochs": ["ClippedUpdate.epochs", "Critic.epochs"],
    "minibatch": ["ClippedUpdate.batch_size", "Critic.batch_size"],
}
_PQN = {
    "num_envs": ["Environment.num_envs"],
    "batch_steps": ["OnPolicyLoop.batch_size"],
    "hidden": ["QNetwork.hidden_layers"],
    "activation": ["QNetwork.activation"],
    "epochs": ["PqnAgent.epochs"],
    "minibatch": ["PqnAgent.batch_size"],
}
_DQN = {
    "num_envs": ["Environment.num_envs"],
    "hidden": ["QNetwork.hidden_layers"],
    "activation": ["QNetwork.activation"],
    "minibatch": ["OffPolicyLoop.batch_size"],
}
PARAMETERS = {
    "trpo": _NATURAL,
    "npg": _NATURAL,
    "ppo": _PPO,
    "pqn": _PQN,
    "dqn": _DQN,
    "ngdqn": _DQN,
}

# What is bound whatever the settings say.
_REPLAY = [
    f"OffPolicyLoop.replay_capacity = {REPLAY_CAPACITY}",
    f"OffPolicyLoop.warmup_steps = {WARMUP_STEPS}",
    "OffPolicyLoop.updates_per_step = 1.0",
    f"ExponentialEpsilon.start = {EPSILON}",
    f"ExponentialEpsilon.end = {EPSILON}",
]
FIXED = {
    "trpo": ["LineSearchedUpdate.fisher_every = 1"],
    "npg": ["NaturalUpdate.fisher_every = 1"],
    "ppo": [],
    "pqn": [],
    # Stable-Baselines3 has no double Q-learning.
    "dqn": [
        *_REPLAY,
        "DqnAgent.double_q = False",
        "DqnAgent.target_update = @HardUpdate()",
        f"HardUpdate.period = {TARGET_PERIOD}",
    ],
    "ngdqn": _REPLAY,
}


def bindings(settings: Settings) -> list[str]:
    """Lines such as `Environment.num_envs = 8` that make the gin file's experiment the row's."""
    lines = [
        f"{parameter} = {getattr(settings, name)!r}"
        for name, parameters in PARAMETERS[settings.algorithm].items()
        for parameter in parameters
    ]
    backend = ["Environment.backend = @CompiledEnvironments()"] if settings.compiled else []
    return [
        *lines,
        f"Environment.env_id = {settings.env_id!r}",
        *backend,
        *FIXED[settings.algorithm],
        *settings.bindings,
    ]


def bound(name: str, default: Any = None) -> Any:
    """What the configuration gives `run` for one of its parameters."""
    import gin

    try:
        value = gin.query_parameter(f"run.{name}")
    except ValueError:
        return default
    return copy.deepcopy(value)  # so gin itself makes of @a the function, and of @a() and %a the value


def make_loop(settings: Settings) -> Any:
    """The training loop."""
    from ngrl import threads  # (before tensorflow)

    limit_tensorflow(settings.threads or threads.DEFAULT)
    import tensorflow as tf
    from tf_agents.specs import tensor_spec

    from ngrl import (
        configuration,
        seeding,
    )

    configuration.parse([settings.gin_file], bindings(settings))
    seed = bound("seed", 0)
    tf.keras.utils.set_random_seed(seeding.integer(seed, seeding.Stream.LIBRARIES))
    environment = bound("environment").load(seed)
    specs = [tensor_spec.from_spec(spec()) for spec in (environment.time_step_spec, environment.action_spec)]
    agent = bound("agent")(*specs, seed=seed)
    return bound("loop")(agent, environment, seed=seed)


def update_seconds(steps: list[tuple[float, bool]]) -> list[float] | None:
    """Seconds of each update, from the seconds of each step and whether it trained.

    That is what a step with an update takes beyond the median of those without; None where every step trains.
    """
    idle = [seconds for seconds, trained in steps if not trained]
    if not idle:
        return None
    usual = statistics.median(idle)
    return [seconds - usual for seconds, trained in steps if trained]


def make(settings: Settings) -> Run:
    """Steps of the loop, warmed up. An on-policy loop stops after an update, so that each run holds whole batches.

    Raises:
      RuntimeError: An update was skipped because of a number that is not finite.
    """
    loop = make_loop(settings)

    def run(env_steps: int) -> tuple[int, list[float] | None]:
        first, steps = loop.statistics.env_steps, []
        trained = False
        while loop.statistics.env_steps - first < env_steps or (settings.is_on_policy and not trained):
            start, before = now(), loop.train_steps
            loop.step()
            trained = loop.train_steps > before
            steps.append((now() - start, trained))
        if loop.skipped_updates:
            raise RuntimeError(f"{loop.skipped_updates} updates were skipped: these times would mean nothing")
        return loop.statistics.env_steps - first, update_seconds(steps) if settings.is_on_policy else None

    run(2 * settings.batch_steps if settings.is_on_policy else WARMUP_STEPS + 400)
    return run


if __name__ == "__main__":
    serve(make)
