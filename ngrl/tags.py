"""TensorBoard's tags: each is declared here, once, with its one meaning. `docs/tensorboard.md` is made of this table.

Agents say their own tags, in `LossInfo.extra.scalars(loss)`. An agent from elsewhere may write others than these.
"""

from typing import NamedTuple

AVERAGE_RETURN = "Metrics/AverageReturn"
BEST_AVERAGE_RETURN = "Metrics/Best100AverageReturn"
STEPS_PER_SECOND = "perf/env_steps_per_second"
SKIPPED_UPDATES = "ngrl/skipped_updates"

OBSERVATION = "Images/observation"

INTERIM_RETURN = "eval/interim_mean_reward"
INTERIM_LENGTH = "eval/interim_mean_ep_length"

# Who writes a tag.
IMAGES = "training runs whose observations are images"
RUN = "every training run"
EVALUATION = "the final evaluation, in `eval/`"
INTERIM = "evaluations amid training (`Evaluation.every`), in `eval/`"
DQN = "`DqnAgent`"
ON_POLICY = "the on-policy agents"
ACER = "`AcerAgent`"
NATURAL = "`DqnAgent` and the on-policy agents with `NaturalGradient`"
KERAS = "Keras' `fit` with `NaturalGradient`"
MLE = "`gin/examples/mle_gaussian.gin`"


class Tag(NamedTuple):
    """What a tag means."""

    meaning: str
    unit: str  # "" for a pure number
    writers: tuple[str, ...]
    label: str = ""  # what a progress line calls it; "" where it doesn't show it
    form: str = ""  # format of the number in a progress line


TAGS: dict[str, Tag] = {
    AVERAGE_RETURN: Tag(
        "mean return of the latest 100 episodes, of all while these are fewer", "reward", (RUN,), "mean100", ".1f"
    ),
    BEST_AVERAGE_RETURN: Tag(
        "highest mean return of 100 consecutive episodes so far", "reward", (RUN,), "best100", ".1f"
    ),
    "Metrics/AverageEpisodeLength": Tag("mean length of the latest 100 episodes", "steps", (RUN,)),
    "Metrics/NumberOfEpisodes": Tag("episodes that have ended", "episodes", (RUN,)),
    "Metrics/EnvironmentSteps": Tag("steps of all environments together; also the horizontal axis", "steps", (RUN,)),
    "rollout/ep_rew_mean": Tag("`Metrics/AverageReturn` under Stable-Baselines3's name", "reward", (RUN,)),
    "rollout/ep_len_mean": Tag("`Metrics/AverageEpisodeLength` under Stable-Baselines3's name", "steps", (RUN,)),
    STEPS_PER_SECOND: Tag("environment steps since the point before, by time", "1/s", (RUN,)),
    "perf/updates_per_second": Tag("updates since the point before, by time", "1/s", (RUN,)),
    OBSERVATION: Tag(
        "a picture: the first environment's observation, frames and channels that are no colours side by side",
        "",
        (IMAGES,),
    ),
    "Losses/td_loss": Tag("mean temporal-difference loss of a minibatch, before its update", "", (DQN,)),
    "Losses/td_error": Tag("mean |y − Q(s, a)|", "reward", (DQN,)),
    "Losses/policy_loss": Tag("the policy's loss before the update, entropy bonus included", "", (ON_POLICY, ACER)),
    "Losses/critic_loss": Tag("the critic's loss, each minibatch before its step", "", (ON_POLICY, ACER)),
    "Losses/negative_log_likelihood": Tag("negative log likelihood, the sum over the points", "nats", (MLE,)),
    "ngrl/epsilon": Tag("probability ε of a random action", "", (DQN,), "ε", ".3f"),
    "ngrl/damping": Tag("λ that the step was solved with", "", (NATURAL, KERAS), "λ", ".3g"),
    SKIPPED_UPDATES: Tag(
        "updates skipped so far because a number was not finite; Keras counts those of the epoch",
        "updates",
        (RUN, KERAS),
        "skipped",
        ".0f",
    ),
    "ngrl/q_mean": Tag("mean Q(s, a) of the actions taken", "reward", (DQN, ACER)),
    "ngrl/kl": Tag("measured mean KL(π_old ‖ π_new) of the whole update", "nats", (ON_POLICY,)),
    "ngrl/predicted_kl": Tag("½ Δθᵀ F Δθ of the step as applied, its predicted divergence", "nats", (NATURAL, KERAS)),
    "ngrl/line_search_kl": Tag(
        "divergence that the line search measured at the length it took; 0 where it took none, no point without it",
        "nats",
        (NATURAL, KERAS),
    ),
    "ngrl/backtracks": Tag("lengths that the line search rejected; 0 without one", "", (NATURAL, KERAS)),
    "ngrl/kl_to_average": Tag("mean KL(average policy ‖ policy) before the update", "nats", (ACER,)),
    "ngrl/surrogate_before": Tag("Ê[ρ Â] at the old policy, where ρ = 1", "", (ON_POLICY,)),
    "ngrl/surrogate_after": Tag("Ê[ρ Â] after the update", "", (ON_POLICY,)),
    "ngrl/entropy": Tag("mean entropy of the policy before the update", "nats", (ON_POLICY, ACER)),
    "ngrl/explained_variance": Tag(
        "share of the variance of the critic's targets that it explains before its fit", "", (ON_POLICY, ACER)
    ),
    "ngrl/gradient_norm": Tag("‖g‖ of the loss of the network that is trained", "", (DQN, ON_POLICY, ACER, KERAS, MLE)),
    "ngrl/critic_gradient_norm": Tag("norm of the critic's gradient", "", (ON_POLICY, ACER)),
    "ngrl/step_norm": Tag("‖Δθ‖ as applied; 0 for a step that was skipped or found no length", "", (NATURAL, KERAS)),
    "ngrl/predicted_change": Tag("gᵀΔθ of the step as applied, the change of the loss to first order", "", (NATURAL,)),
    "ngrl/reduction_ratio": Tag(
        "actual by predicted change of the loss; no point where it was not measured", "", (NATURAL, KERAS)
    ),
    "ngrl/solver_iterations": Tag("iterations of the solver", "", (NATURAL, KERAS)),
    "ngrl/solver_residual": Tag("‖g − (F + λI) x‖ / ‖g‖", "", (NATURAL, KERAS)),
    "ngrl/importance_ratio_mean": Tag("mean importance ratio ρ of the actions taken", "", (ACER,)),
    "ngrl/importance_ratio_max": Tag("highest importance ratio ρ, 10⁶ at most", "", (ACER,)),
    "ngrl/truncated_share": Tag("share of steps with ρ above the truncation c", "", (ACER,)),
    "ngrl/trust_region_active_share": Tag("share of steps at which the trust region bent the gradient", "", (ACER,)),
    "ngrl/replayed_trajectories": Tag("trajectories in the replay buffer", "", (ACER,)),
    "eval/mean_reward": Tag("mean return of the exported greedy policy's episodes", "reward", (EVALUATION,)),
    "eval/mean_ep_length": Tag("their mean length", "steps", (EVALUATION,)),
    INTERIM_RETURN: Tag("mean return of the greedy policy's episodes amid training", "reward", (INTERIM,)),
    INTERIM_LENGTH: Tag("mean length of the episodes amid training", "steps", (INTERIM,)),
    "mle/mu": Tag("mean of the Gaussian", "", (MLE,)),
    "mle/sigma": Tag("its standard deviation", "", (MLE,)),
    "mle/kl_to_target": Tag("KL(target ‖ Gaussian)", "nats", (MLE,)),
    "mle/step_kl": Tag("KL(before ‖ after) of the step", "nats", (MLE,)),
}
