"""The on-policy methods by their names: `OnPolicyAgent` with the update that makes each of them."""

import inspect
from collections.abc import Callable
from typing import Any

from ngrl.agents import updates
from ngrl.agents.on_policy_agent import OnPolicyAgent


def _method(name: str, update: Callable[..., updates.PolicyUpdate]) -> Callable[..., OnPolicyAgent]:
    own = set(inspect.signature(update).parameters)

    def agent(
        time_step_spec: Any, action_spec: Any, actor_network: Any, optimizer: Any, *others: Any, **settings: Any
    ) -> OnPolicyAgent:
        made = update(optimizer, **{key: settings.pop(key) for key in own & set(settings)})
        return OnPolicyAgent(time_step_spec, action_spec, actor_network, made, *others, **{"name": name, **settings})

    agent.__name__ = agent.__qualname__ = name
    agent.__doc__ = f"`OnPolicyAgent` with an optimizer in the update's place, and what `{update.__name__}` takes."
    return agent


ReinforceAgent = _method("ReinforceAgent", updates.PlainUpdate)
NpgAgent = _method("NpgAgent", updates.NaturalUpdate)
AcktrAgent = _method("AcktrAgent", updates.NaturalUpdate)
TrpoAgent = _method("TrpoAgent", updates.LineSearchedUpdate)
PpoAgent = _method("PpoAgent", updates.ClippedUpdate)
NacAgent = _method("NacAgent", updates.CompatibleUpdate)
