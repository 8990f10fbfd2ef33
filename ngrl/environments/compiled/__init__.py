"""Environments as TensorFlow functions, batched over members: `CompiledEnvironments` (`ngrl.environments.backends`).

A file a family holds what its members do in a step (`dynamics.Dynamics`), `kinds` the names, `vector` episodes and
their random beginnings, `bridge` the TF-Agents environment.
"""
