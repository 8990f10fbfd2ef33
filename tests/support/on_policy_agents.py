"""Every on-policy agent, in the one table from which tests build them as objects; a new agent is a line here.

`experiments.AGENTS` is the other one, of gin files for runs of the command.
"""

import tensorflow as tf

from ngrl import agents, optimizers

#: An agent, and what takes its steps: a Keras optimizer, a natural gradient, or one with a line search.
ON_POLICY = {
    "reinforce": (agents.ReinforceAgent, "plain"),
    "npg": (agents.NpgAgent, "natural"),
    "trpo": (agents.TrpoAgent, "searched"),
    "ppo": (agents.PpoAgent, "plain"),
}


def make_optimizer(kind, rate, *, learning_rate=None, **natural):
    """Adam with `rate`, or a natural gradient with what else is given."""
    step = ON_POLICY[kind][1]
    if step == "plain":
        return tf.keras.optimizers.Adam(rate)
    search = optimizers.BacktrackingLineSearch() if step == "searched" else None
    return optimizers.NaturalGradient(learning_rate, line_search=search, **natural)
