"""Loss functions: pure, one per published equation."""

from ngrl.losses.compatible import (
    EpisodeSums,
    LinearSystem,
    damp_scores,
    episode_sums,
    episodic_regression,
    lstd_q_system,
)
from ngrl.losses.divergences import (
    kl_categorical,
    kl_diagonal_gaussian,
    symmetric_kl_categorical,
    symmetric_kl_diagonal_gaussian,
)
from ngrl.losses.policy import (
    categorical_entropy,
    categorical_log_prob,
    clipped_surrogate_loss,
    diagonal_gaussian_entropy,
    diagonal_gaussian_log_prob,
    explained_variance,
    importance_ratio,
    normalise_advantages,
    policy_gradient_loss,
    surrogate_loss,
)
from ngrl.losses.returns import (
    BoundaryMasks,
    boundary_masks,
    discounted_returns,
    generalised_advantage,
    td_lambda_returns,
)
from ngrl.losses.td import (
    double_q_target,
    gather_actions,
    half_squared_error,
    huber,
    q_learning_target,
    squared_error,
    weighted_mean,
)

__all__ = [
    "BoundaryMasks",
    "EpisodeSums",
    "LinearSystem",
    "boundary_masks",
    "categorical_entropy",
    "categorical_log_prob",
    "clipped_surrogate_loss",
    "damp_scores",
    "diagonal_gaussian_entropy",
    "diagonal_gaussian_log_prob",
    "discounted_returns",
    "double_q_target",
    "episode_sums",
    "episodic_regression",
    "explained_variance",
    "gather_actions",
    "generalised_advantage",
    "half_squared_error",
    "huber",
    "importance_ratio",
    "kl_categorical",
    "kl_diagonal_gaussian",
    "lstd_q_system",
    "normalise_advantages",
    "policy_gradient_loss",
    "q_learning_target",
    "squared_error",
    "surrogate_loss",
    "symmetric_kl_categorical",
    "symmetric_kl_diagonal_gaussian",
    "td_lambda_returns",
    "weighted_mean",
]
