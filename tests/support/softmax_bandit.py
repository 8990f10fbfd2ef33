"""A contextual bandit with a linear softmax policy: surrogate, divergence and Fisher are closed forms in NumPy."""

import numpy as np
import tensorflow as tf
from scipy import special

from ngrl import losses
from ngrl.curvature import Categorical, GaussNewton


class SoftmaxBandit:
    """Logits (x W, 0) for features x [B, F] and weights W [F, A - 1]: no direction of W leaves the policy as it is."""

    def __init__(self, seed=0, rows=12, features=3, actions=4, dtype=np.float64):
        generator = np.random.default_rng(seed)
        self.x = generator.normal(size=(rows, features)).astype(dtype)
        self.fisher_x = generator.normal(size=(8, features)).astype(dtype)  # other states, for the Fisher alone
        self.actions = generator.integers(actions, size=rows)
        self.advantages = generator.normal(size=rows).astype(dtype)
        self.start = generator.normal(size=(features, actions - 1)).astype(dtype)
        self.w = tf.Variable(self.start)

    def forward(self, x):
        logits = tf.linalg.matmul(x, self.w)
        return tf.concat([logits, tf.zeros_like(logits[:, :1])], axis=1)

    def operator(self, other_states=False):
        return GaussNewton(
            self.forward, [self.w], tf.constant(self.fisher_x if other_states else self.x), Categorical()
        )

    def update(self, optimizer, other_states=False):
        """One step from the present policy: a tf.function's body, or eager."""
        old_logits = tf.stop_gradient(self.forward(self.x))
        actions = tf.constant(self.actions)
        old_log_probs = losses.categorical_log_prob(old_logits, actions)

        def loss_fn():
            log_probs = losses.categorical_log_prob(self.forward(self.x), actions)
            return losses.surrogate_loss(log_probs, old_log_probs, tf.constant(self.advantages))

        def divergence_fn():
            return tf.reduce_mean(losses.kl_categorical(old_logits, self.forward(self.x)))

        with tf.GradientTape() as tape:
            loss = loss_fn()
        pairs = [(tape.gradient(loss, self.w), self.w)]
        return optimizer.apply_natural_gradient(
            pairs, self.operator(other_states), loss=loss, loss_fn=loss_fn, divergence_fn=divergence_fn
        )

    def log_probs(self, w, x=None):
        x = self.x if x is None else x
        logits = np.concatenate([x @ w, np.zeros((len(x), 1), w.dtype)], axis=1)
        return special.log_softmax(logits.astype(np.float64), axis=1)

    def loss(self, w, w_old):
        """The surrogate: minus the mean of importance ratio times advantage."""
        rows = np.arange(len(self.x))
        ratio = np.exp(self.log_probs(w)[rows, self.actions] - self.log_probs(w_old)[rows, self.actions])
        return -np.mean(ratio * self.advantages)

    def kl(self, w, w_old):
        old, new = self.log_probs(w_old), self.log_probs(w)
        return np.mean(np.sum(np.exp(old) * (old - new), axis=1))

    def gradient(self, w):
        """Of the surrogate at w_old = w: [P]."""
        chosen = np.eye(w.shape[1] + 1)[self.actions]
        score = chosen - np.exp(self.log_probs(w))
        return -(self.x.T @ (self.advantages[:, None] * score)[:, :-1] / len(self.x)).reshape(-1)

    def fisher(self, w, other_states=False):
        """Mean of x xᵀ ⊗ (diag(p) - p pᵀ) without the last action's row and column: [P, P]."""
        x = self.fisher_x if other_states else self.x
        p = np.exp(self.log_probs(w, x))[:, :-1]
        return np.mean(
            [np.kron(np.outer(a, a), np.diag(b) - np.outer(b, b)) for a, b in zip(x, p, strict=True)], axis=0
        )

    def backtracked(self, w, damping, max_kl, line_search, other_states=False):
        """The step with a line search, as a loop in NumPy: the weights after it and the lengths rejected."""
        gradient, fisher = self.gradient(w), self.fisher(w, other_states)
        x = np.linalg.solve(fisher + damping * np.eye(len(gradient)), gradient)
        full = -np.sqrt(2 * max_kl / (x @ fisher @ x)) * x
        for j in range(line_search.max_backtracks + 1):
            length = line_search.shrink**j
            candidate = w + length * full.reshape(w.shape)
            decrease = self.loss(w, w) - self.loss(candidate, w)
            enough = decrease >= -line_search.min_reduction_ratio * length * (gradient @ full)
            if self.kl(candidate, w) <= max_kl and decrease > 0 and enough:
                return candidate, j
        return w, line_search.max_backtracks + 1
