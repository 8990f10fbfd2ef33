"""Whole training runs for tests: `train`, which takes what belongs to a run's objects as plain arguments."""

import dataclasses

from ngrl import training
from ngrl.environments import Environment
from ngrl.training import Evaluation, RunContext


def train(root_dir, env_id, agent, loop, **options):
    """`training.run`; fields of its context, its environment's settings and its evaluation may be among the options."""

    def made(kind, *arguments):
        fields = [field.name for field in dataclasses.fields(kind)]
        return kind(*arguments, **{name: options.pop(name) for name in fields if name in options})

    context, environment = made(RunContext, root_dir), made(Environment, env_id)
    return training.run(context, environment, agent, loop, evaluation=made(Evaluation), **options)
