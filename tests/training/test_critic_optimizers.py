"""Every base file of a policy with a critic that takes natural gradients, one with every optimizer that there is."""

from pathlib import Path

import gin
import pytest
from experiments import said_before

from ngrl import configuration
from ngrl.reports.runs import METHODS
from ngrl.training import RunContext, configurables

BASE = Path(__file__).parents[2] / "gin" / "base"
pytestmark = pytest.mark.usefixtures("_live_policies")


def is_of_a_policy(path):
    """Whether an experiment, or a file that experiments include, says that its agent is a policy."""
    configuration.parse([*said_before(path), str(path)], [])
    try:
        return "policy_agent" in str(configuration.bindings().get("run.agent"))
    finally:
        gin.clear_config()


POLICIES = sorted(path.stem for path in BASE.glob("*.gin") if path.stem in METHODS and is_of_a_policy(path))
OPTIMIZERS = {"Adam": "@critic/Adam()", "NaturalGradient": "@critic/NaturalGradient()", "none": "None"}
NATURAL = "NaturalGradient"
SHORT = [
    "Environment.env_id = 'CartPole-v1'",
    "Environment.num_envs = 4",
    "run.num_env_steps = 200",
    "Evaluation.episodes = 0",
    "OnPolicyLoop.batch_size = 100",
    "OnPolicyLoop.jit_compile = False",
    "ActorNetwork.hidden_layers = ()",
    "ValueNetwork.hidden_layers = (4,)",
    "Critic.epochs = 1",
    "Critic.batch_size = 32",
]


@pytest.fixture(autouse=True)
def _empty_gin():
    gin.clear_config()
    yield
    gin.clear_config()


def run(tmp_path, base, *bindings):
    configuration.parse([str(BASE / f"{base}.gin")], [*SHORT, *bindings])
    return configurables.run(RunContext(tmp_path / "run"))


def test_the_policies_are_there():
    assert set(POLICIES) >= {"trpo", "npg", "acktr", "nac", "ppo", "reinforce"}


@pytest.mark.parametrize(
    ("base", "optimizer"),
    [("trpo", optimizer) for optimizer in OPTIMIZERS]
    + [(base, "NaturalGradient") for base in POLICIES if base != "trpo"],
)
def test_a_base_file_trains_with_a_critic_optimizer(tmp_path, base, optimizer):
    final = run(tmp_path, base, f"policy_agent.critic_optimizer = {OPTIMIZERS[optimizer]}")
    assert (final["train_steps"], final["skipped_updates"]) == (2, 0)
    if optimizer == NATURAL and base != "acktr":  # whose critic has settings of its own
        # Nothing of the policy's is the critic's.
        settings = [line for line in gin.operative_config_str().splitlines() if line.startswith("critic/")]
        assert "critic/NaturalGradient.learning_rate = 1.0" in settings
        assert "critic/NaturalGradient.damping = 1.0" in settings
        for setting in ("max_kl", "solver", "line_search"):
            assert f"critic/NaturalGradient.{setting} = None" in settings


def test_a_critic_with_a_solver_of_its_own_has_that_solver_s_defaults(tmp_path):
    own = ("policy_agent.critic_optimizer = @critic/NaturalGradient()", "critic/NaturalGradient.solver = @Minres()")
    run(tmp_path, "npg", *own, "critic/Minres.max_iterations = 7")
    settings = gin.operative_config_str()
    assert "critic/Minres.max_iterations = 7" in settings
    assert "actor/ConjugateGradient.max_iterations = 15" in settings


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (
            ["critic/NaturalGradient.line_search = @BacktrackingLineSearch()", "critic/NaturalGradient.max_kl = 0.1"],
            "Critic: its optimizer has a line search",
        ),
        (
            ["critic/NaturalGradient.learning_rate = None", "critic/NaturalGradient.max_kl = 0.1"],
            "Critic: its optimizer has learning_rate=None",
        ),
    ],
)
def test_a_critic_optimizer_with_settings_of_a_policy_is_refused_before_anything_is_written(
    tmp_path, bindings, message
):
    with pytest.raises(ValueError, match=message) as refused:
        run(tmp_path, "trpo", "policy_agent.critic_optimizer = @critic/NaturalGradient()", *bindings)
    assert "\n" not in str(refused.value).split("\n  In call")[0]
    assert not list(tmp_path.iterdir())


def test_no_experiment_of_a_policy_binds_the_natural_gradient_without_a_scope():
    """Such a binding would be the critic's too, and overridden where a base file has a scope."""
    policies = [path for path in BASE.parent.rglob("*.gin") if is_of_a_policy(path)]
    assert len(policies) > 20
    wrong = [
        f"{path.relative_to(BASE.parent)}: {line}"
        for path in policies
        for line in path.read_text().splitlines()
        if line.startswith(("NaturalGradient.", "ConjugateGradient."))
    ]
    assert not wrong
