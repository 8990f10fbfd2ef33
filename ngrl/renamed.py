"""Settings that had another name: what files that use it are answered, and how records of then are read."""

from collections.abc import Mapping

#: Old name to new one, each as `configurable.parameter`.
_MOVED = {
    "run.env_id": "Environment.env_id",
    "run.num_envs": "Environment.num_envs",
    "run.env_kwargs": "Environment.kwargs",
    "run.env_backend": "Environment.backend",
    "run.env_timeout": "AsyncEnvironments.timeout",
    "run.training_time_limit": "Environment.training_time_limit",
    "run.truncation_is_terminal": "Environment.truncation_is_terminal",
    "run.check_finite": "Environment.check_finite",
    "run.eval_episodes": "Evaluation.episodes",
    "run.eval_max_episode_steps": "Evaluation.max_episode_steps",
    "run.capture_video": "Evaluation.capture_video",
    "solver_comparison.env_id": "Environment.env_id",
    "solver_comparison.num_envs": "Environment.num_envs",
}
_BACKENDS = {"'sync'": "@SyncEnvironments()", "'async'": "@AsyncEnvironments()", "'envpool'": "@EnvpoolEnvironments()"}
# A configurable's former name: its present one, and where those of its parameters are that it has no more.
_UPDATES = {
    "ReinforceAgent": "PlainUpdate",
    "NpgAgent": "NaturalUpdate",
    "TrpoAgent": "LineSearchedUpdate",
    "PpoAgent": "ClippedUpdate",
    "NacAgent": "CompatibleUpdate",
}
_OF_THE_AGENT = ("entropy_weight", "seed")
_FISHER_EVERY = "fisher_every = n, which takes every n-th state: n = 1 / fisher_fraction"

# A parameter's former name.
_PARAMETERS = {
    ("run", "env_backend"): f"Environment.backend = {', '.join(_BACKENDS.values())} or another",
    ("NaturalUpdate", "fisher_fraction"): f"NaturalUpdate.{_FISHER_EVERY}",
    ("LineSearchedUpdate", "fisher_fraction"): f"LineSearchedUpdate.{_FISHER_EVERY}",
    ("AcerAgent", "gamma"): "Retrace.gamma",
    ("AcerAgent", "retrace_lambda"): "Retrace.retrace_lambda",
    ("AcerAgent", "reward_scale"): "Retrace.reward_scale",
    ("AcerAgent", "trust_region"): "TrustRegion.delta",
    ("AcerAgent", "trust_region_statistics"): "TrustRegion.statistics",
    ("AcerAgent", "average_update"): "TrustRegion.average_update",
}


def present_name(name: str, parameter: str = "") -> str | None:
    """What to write for a name that gin files no longer know; None if nothing is known of it.

    Args:
      name: Of a configurable, as a file spells it.
      parameter: Its parameter that a file binds; "" for a reference.
    """
    update = _UPDATES.get(name)
    if update is None:
        return _PARAMETERS.get((name, parameter)) or _MOVED.get(f"{name}.{parameter}")
    if not parameter:
        return f"policy_agent.update = @{update}"
    if parameter in _OF_THE_AGENT:
        return f"OnPolicyAgent.{parameter}"
    return _PARAMETERS.get((update, parameter), f"{update}.{parameter}")


def current(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings of a run, name to value as text, under the names that they have today."""
    found = {_MOVED.get(name, name): value for name, value in settings.items()}
    if "run.env_id" in settings:
        found |= {"run.environment": "@Environment()", "run.evaluation": "@Evaluation()"}
    if "Environment.backend" in found:
        found["Environment.backend"] = _BACKENDS.get(found["Environment.backend"], found["Environment.backend"])
    return found
