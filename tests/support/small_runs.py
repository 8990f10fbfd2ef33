"""Whole training runs for tests: `train`, which takes what belongs to a run's objects as plain arguments."""

import dataclasses

from ngrl import training


def train(root_dir, env_id, agent, loop, **options):
    """`training.run`; arguments of `RunContext` may stand among the options."""
    context = [field.name for field in dataclasses.fields(training.RunContext)]
    context = training.RunContext(root_dir, **{name: options.pop(name) for name in context if name in options})
    return training.run(context, env_id, agent, loop, **options)
