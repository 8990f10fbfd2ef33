"""Worker: Tianshou's TRPO and NPG, with their own defaults beside the shared settings.

Tianshou fixes ten iterations of conjugate gradients in its code and fits its critic to the whole batch at once. An
update is its `update` method, which computes values and advantages too.
"""

from typing import Any

from worker_protocol import Run, Settings, Stopwatch, limit_torch, serve


def make_policy(settings: Settings, environment: Any) -> tuple[Any, Any]:
    """Policy and critic, with separate networks."""
    import gymnasium
    import torch
    from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy, ProbabilisticActorPolicy
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
    from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

    space = environment.action_space
    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[settings.activation]

    def network() -> Net:
        shape = environment.observation_space.shape
        return Net(state_shape=shape, hidden_sizes=settings.hidden, activation=activation)

    if isinstance(space, gymnasium.spaces.Discrete):
        actor = DiscreteActor(preprocess_net=network(), action_shape=space.n, softmax_output=False)
        return DiscreteActorPolicy(actor=actor, action_space=space), DiscreteCritic(preprocess_net=network())

    def gaussian(mean_and_scale: tuple[torch.Tensor, torch.Tensor]) -> torch.distributions.Distribution:
        return torch.distributions.Independent(torch.distributions.Normal(*mean_and_scale), 1)

    actor = ContinuousActorProbabilistic(preprocess_net=network(), action_shape=space.shape, unbounded=True)
    policy = ProbabilisticActorPolicy(actor=actor, dist_fn=gaussian, action_space=space, action_bound_method="clip")
    return policy, ContinuousCritic(preprocess_net=network())


def make_trainer(settings: Settings) -> Any:
    """Tianshou's own trainer, without tests, logs and progress bars."""
    import gymnasium
    import torch
    from tianshou.algorithm import NPG, TRPO
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OnPolicyTrainer, OnPolicyTrainerParams

    torch.manual_seed(0)
    environments = DummyVectorEnv([lambda: gymnasium.make(settings.env_id) for _ in range(settings.num_envs)])
    environments.seed(0)
    policy, critic = make_policy(settings, gymnasium.make(settings.env_id))
    kind = {"trpo": TRPO, "npg": NPG}[settings.algorithm]
    optimizer = AdamOptimizerFactory(lr=1e-3)
    algorithm = kind(policy=policy, critic=critic, optim=optimizer, optim_critic_iters=settings.epochs)
    buffer = VectorReplayBuffer(settings.batch_steps, settings.num_envs)
    params = OnPolicyTrainerParams(
        training_collector=Collector(algorithm, environments, buffer),
        collection_step_num_env_steps=settings.batch_steps,
        batch_size=None if settings.minibatch == settings.batch_steps else settings.minibatch,
        update_step_num_repetitions=1,
        show_progress=False,
        verbose=False,
    )
    return OnPolicyTrainer(algorithm, params)


def make(settings: Settings) -> Run:
    """Epochs of Tianshou's trainer, warmed up.

    Raises:
      ValueError: The settings ask for another number of iterations than Tianshou's.
    """
    if settings.cg_iterations != 10:
        raise ValueError(f"Tianshou makes 10 iterations of conjugate gradients, not {settings.cg_iterations}")
    limit_torch(settings.threads)
    trainer = make_trainer(settings)
    watch = Stopwatch(trainer.algorithm.update)
    trainer.algorithm.update = watch
    trainer.reset()

    def run(env_steps: int) -> tuple[int, list[float]]:
        trainer.params.epoch_num_steps = env_steps
        before = trainer.params.training_collector.collect_step
        trainer.execute_epoch()
        return trainer.params.training_collector.collect_step - before, watch.take()

    run(2 * settings.batch_steps)
    return run


if __name__ == "__main__":
    serve(make)
