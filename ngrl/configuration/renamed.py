"""Names that gin files used once, and what to write in their place: the answer to whoever still has such a file."""

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
        return _PARAMETERS.get((name, parameter))
    if not parameter:
        return f"policy_agent.update = @{update}"
    if parameter in _OF_THE_AGENT:
        return f"OnPolicyAgent.{parameter}"
    return _PARAMETERS.get((update, parameter), f"{update}.{parameter}")
