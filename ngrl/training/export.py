"""Policies as SavedModels: written, and loaded again."""

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.policies import policy_saver, tf_policy
from tf_agents.trajectories import time_step as ts

from ngrl.messages import reason
from ngrl.runs.files import WriteError, failure, size_of, unfinished, write_json
from ngrl.training.evaluation import Actor

#: What describes a policy, beside its model.
SIDECAR = "ngrl_policy.json"


class PolicyError(RuntimeError):
    """A policy can't be loaded; the message is one line."""


class _ActionsOnly(tf_policy.TFPolicy):
    """A policy that offers its actions and not their distribution.

    `PolicySaver` would store the distribution's type, and a SavedModel that names a TensorFlow Probability type
    can't be loaded without that library.
    """

    def __init__(self, policy: tf_policy.TFPolicy):
        super().__init__(
            policy.time_step_spec,
            policy.action_spec,
            policy_state_spec=policy.policy_state_spec,
            info_spec=policy.info_spec,
        )
        self._wrapped = policy

    def _variables(self) -> Any:
        return self._wrapped.variables()

    def _action(self, time_step: ts.TimeStep, policy_state: Any, seed: Any) -> Any:
        return self._wrapped.action(time_step, policy_state, seed)

    def _distribution(self, time_step: ts.TimeStep, policy_state: Any) -> Any:
        # A graph that fails when it is called. An exception here would do the same, after a warning in the log.
        with tf.control_dependencies([tf.Assert(False, ["an exported policy offers actions, not their distribution"])]):
            return tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), self.policy_step_spec)


def _alike(name: str) -> str:
    """What is the same of names that TensorFlow does not tell apart, such as `a/B` and `a_b`."""
    return re.sub(r"\W", "_", name).lower()


@contextlib.contextmanager
def _legal_names() -> Iterator[None]:
    """Within, a `PolicySaver` names the inputs of signatures as TensorFlow takes names, whatever keys a Dict has.

    Those are paths such as `0/observation/key`. Names have letters, digits and a few signs.
    """
    by_paths = policy_saver.rename_spec_with_nest_paths

    def rename(spec: Any) -> Any:
        taken: set[str] = set()

        def legal(leaf: tf.TensorSpec) -> tf.TensorSpec:
            parts = re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", leaf.name).split("/")
            path = name = "/".join(filter(None, parts))
            number = 1
            while _alike(name) in taken:
                number += 1
                name = f"{path}_{number}"
            taken.add(_alike(name))
            return tf.TensorSpec(leaf.shape, leaf.dtype, name)

        return tf.nest.map_structure(legal, by_paths(spec))

    policy_saver.rename_spec_with_nest_paths = rename
    try:
        yield
    finally:
        policy_saver.rename_spec_with_nest_paths = by_paths


def export_policy(policy: tf_policy.TFPolicy, folder: Path, description: dict[str, Any]) -> None:
    """Write a policy as a SavedModel that plain TensorFlow loads.

    The folder appears whole or not at all, in the place of an older one. `description` goes into `ngrl_policy.json`
    beside the model, for `ngrl.evaluate`.

    Raises:
      WriteError: It can't be written, e.g. because the disk is full; an older one is still there.
    """
    temporary, replaced = unfinished(folder), _replaced(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    restore_policy(folder)
    try:
        with _legal_names():
            saver = policy_saver.PolicySaver(_ActionsOnly(policy), batch_size=None)
        saver.save(str(temporary))
        write_json(temporary / SIDECAR, description)
        if folder.exists():
            folder.rename(replaced)
        temporary.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, WriteError, tf.errors.OpError) as error:
        line = str(error) if isinstance(error, WriteError) else failure(folder, error, size_of(temporary))
        shutil.rmtree(temporary, ignore_errors=True)
        raise WriteError(line) from error


def restore_policy(folder: Path) -> None:
    """Bring the older policy back where a process was killed while it put a newer one in its place."""
    replaced = _replaced(folder)
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def _replaced(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.replaced")


def load_policy(folder: Path) -> tuple[Actor, dict[str, Any]]:
    """Load what `export_policy` wrote.

    Returns:
      The policy as a function from time steps to actions, and the description.

    Raises:
      PolicyError: The folder holds no such policy.
    """
    if not (folder / "saved_model.pb").exists():
        inner = folder / "policy"
        hint = f"; is {inner} meant?" if (inner / "saved_model.pb").exists() else ""
        raise PolicyError(f"{folder} holds no SavedModel{hint}")
    try:
        description = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
    except FileNotFoundError:
        description = {}
    except (OSError, ValueError) as error:
        raise PolicyError(f"can't read {folder / SIDECAR}: {reason(error)}") from error
    if not _is_description(description):
        raise PolicyError(f"{folder / SIDECAR} is damaged: it isn't what an export writes")
    if description.get("env_backend") == "gymnasium":  # what ngrl 0.1 called it
        description["env_backend"] = "sync"
    try:
        model = tf.saved_model.load(str(folder))
        model.get_initial_state(batch_size=1)
    except (OSError, ValueError, AttributeError, LookupError, tf.errors.OpError) as error:
        raise PolicyError(f"{folder} is no TF-Agents policy, or damaged: {reason(error)}") from error

    def action(step: ts.TimeStep, state: Any) -> Any:
        try:
            return model.action(step, state)
        except (TypeError, ValueError) as error:
            given = tf.nest.map_structure(lambda part: part.shape[1:].as_list(), step.observation)
            missing = "" if "specs" in description else f"; {SIDECAR}, which says what it takes, is missing or damaged"
            raise PolicyError(f"{folder} does not take observations of shape {given}{missing}") from error

    return _carrying(model, action), description


def as_actor(policy: tf_policy.TFPolicy) -> Actor:
    """A live policy as a function from time steps with arrays to actions."""
    return _carrying(policy, tf.function(policy.action, autograph=False))


def _is_description(content: Any) -> bool:
    """Whether it has the parts that others take for granted, or lacks them altogether."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("env_kwargs", {}), dict)
        and ("specs" not in content or {"observation", "action"} <= set(content["specs"] or ()))
    )


def _carrying(policy: Any, action: Callable[..., Any]) -> Actor:
    """The policy's actions; its state, if it has one, is carried as long as as many environments ask for them.

    The policy itself forgets an episode where the next one begins.
    """
    carried: dict[int, Any] = {}  # of the latest number of environments alone

    def actor(step: ts.TimeStep) -> np.ndarray:
        size = len(step.step_type)
        if size not in carried:
            carried.clear()
            carried[size] = policy.get_initial_state(batch_size=size)
        chosen = action(tf.nest.map_structure(tf.convert_to_tensor, step), carried[size])
        carried[size] = chosen.state
        return chosen.action.numpy()

    return actor
