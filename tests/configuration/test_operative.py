"""What is in force once everything has been built, defaults included, and settings that nothing reads."""

import re
from pathlib import Path

import gin
import pytest
from built import settled

from ngrl import configuration
from ngrl.configuration import ConfigurationError, operative
from ngrl.runs.identity import differences

ROOT = Path(__file__).parents[2]
GIN = ROOT / "gin"
RUNS = re.compile(r"\.env_id = |main\.entry")
EXPERIMENTS = sorted(path for path in GIN.rglob("*.gin") if RUNS.search(path.read_text()) and path.stem != "base")


@pytest.fixture(autouse=True)
def _empty_gin(monkeypatch):
    monkeypatch.chdir(ROOT)
    gin.clear_config()
    yield
    gin.clear_config()


def written(tmp_path, *lines, base="trpo_cartpole_v1"):
    """A file that includes an experiment and goes on with these lines, from its second line on."""
    (tmp_path / "x.gin").write_text("\n".join([f"include '{GIN}/{base}.gin'", *lines]))
    return [tmp_path / "x.gin"]


def identity(*bindings, base="ngdqn_cartpole_v1"):
    return settled([GIN / f"{base}.gin"], bindings)[0]


def test_defaults_are_in_force_as_bindings_are():
    found = identity()
    assert found["NaturalGradient.momentum"] == "0.0"  # not bound anywhere
    assert found["main.entry"] == "@run"  # functions and classes, which gin leaves out
    assert found["dqn_agent.network"] == "@ngrl.QNetwork"
    assert found["Environment.env_id"] == "'CartPole-v1'"
    assert not any(name.startswith("tf_agents.") or "Policy." in name for name in found)
    assert found == identity("NaturalGradient.momentum = 0", "dqn_agent.network = @QNetwork") | {
        "NaturalGradient.momentum": "0.0"
    }


@pytest.mark.parametrize(
    "binding",
    [
        "NaturalGradient.momentum = 0",
        "Environment.num_envs = %n\nn = 8",
        "run.num_env_steps = 7",
        "QNetwork.hidden_layers = [64]",
    ],
)
def test_binding_that_changes_nothing_makes_no_other_experiment(binding):
    before, now = identity(), identity(*binding.splitlines())
    assert differences(before, now) == differences(now, before) == []


def test_changed_default_makes_another_experiment_and_is_named(monkeypatch):
    before = identity(base="npg_cartpole_v1")
    defaults = gin.config._OPERATIVE_CONFIG
    called = next(key for key in defaults if key[1].endswith(".NaturalUpdate"))
    monkeypatch.setattr(gin.config, "_OPERATIVE_CONFIG", {**defaults, called: {**defaults[called], "fisher_every": 2}})
    assert differences(before, operative.identity()) == ["NaturalUpdate.fisher_every (1 there, 2 here)"]


def test_what_is_first_called_in_training_counts_too():
    found = identity("ngrl.DqnAgent.td_loss = @huber", "huber.delta = 3.0")
    assert found["huber.delta"] == "3.0"
    default = identity("ngrl.DqnAgent.td_loss = @huber")
    assert differences(default, found) == [f"huber.delta ({operative.default('huber.delta')} there, 3.0 here)"]


def test_references_count_by_what_they_name_through_macros_and_scopes():
    found = identity("NaturalGradient.solver = %solver", "solver = @s/Dual()", "s/Dual.solver = @Cholesky()")
    assert found["NaturalGradient.solver"] == "@s/Dual()"
    assert found["s/Dual.solver"] == "@Cholesky()"
    assert not any(name.startswith(("solver", "Dual.", "ConjugateGradient.")) for name in found)


def test_default_of_a_setting_is_that_of_the_code():
    assert operative.default("NaturalGradient.momentum") == operative.default("s/NaturalGradient.momentum") == "0.0"
    assert operative.default("dqn_agent.network") == "@ngrl.QNetwork"
    for name in ("Environment.env_id", "dqn_agent.optimizer", "NaturalGradient.vanished", "vanished.x", "x"):
        assert operative.default(name) is None


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.relative_to(GIN)))
def test_own_experiments_set_nothing_that_is_not_read(path):
    found, lines = settled([path])
    assert lines == []
    assert len(found) >= 4


def test_settings_in_files_that_nothing_reads_are_named_in_a_line_with_their_places(tmp_path):
    _, lines = settled(written(tmp_path, "ClippedUpdate.clip_ratio = 0.3", "", "huber.delta = 3.0"))
    where = tmp_path / "x.gin"
    assert lines == [f"nothing reads ngrl.ClippedUpdate.clip_ratio ({where}:2), huber.delta ({where}:4)"] or lines == [
        f"nothing reads ClippedUpdate.clip_ratio ({where}:2), huber.delta ({where}:4)"
    ]


def test_setting_that_an_included_one_in_an_inner_scope_overrides_is_named(tmp_path):
    _, (line,) = settled(written(tmp_path, "NaturalGradient.max_kl = 0.3"))
    assert line == (
        f"nothing reads NaturalGradient.max_kl ({tmp_path / 'x.gin'}:2; actor/NaturalGradient.max_kl overrides it)"
    )


def test_setting_that_a_later_one_in_an_inner_scope_overrides_is_replaced(tmp_path):
    lines = ["NaturalGradient.momentum = 0.5", "actor/NaturalGradient.momentum = 0.6"]
    assert settled(written(tmp_path, *lines))[1] == []


def test_what_a_file_chooses_anew_leaves_no_line_about_what_it_includes(tmp_path):
    lines = ["dqn_agent.optimizer = @Adam()", "Adam.learning_rate = 0.01"]
    assert settled(written(tmp_path, *lines, base="ngdqn_cartpole_v1"))[1] == []
    lines = ["dqn_agent.network = @mine/QNetwork", "mine/QNetwork.hidden_layers = (8,)", "main.entry = @geometry"]
    assert settled(written(tmp_path, *lines[2:], base="ngdqn_cartpole_v1"))[1] == []
    assert settled(written(tmp_path, *lines[:2], base="ngdqn_cartpole_v1"))[1] == []


@pytest.mark.parametrize(
    ("binding", "reason"),
    [
        ("ClippedUpdate.clip_ratio = 0.3", "nothing reads it"),
        ("NaturalGradient.max_kl = 0.3", "nothing reads it; actor/NaturalGradient.max_kl overrides it"),
        ("huber.delta = 3.0", "nothing reads it"),
    ],
)
def test_setting_of_the_command_line_that_nothing_reads_is_refused(binding, reason):
    with pytest.raises(ConfigurationError, match=rf"^--gin_bindings '{re.escape(binding)}': {reason}"):
        identity(binding, base="trpo_cartpole_v1")


@pytest.mark.parametrize(
    ("binding", "hint"), [("acter/Adam.learning_rate = 0.5", '; did you mean "actor"?'), ("x/run.seed = 1", "")]
)
def test_scope_that_no_reference_names_is_refused_while_reading(binding, hint):
    scope = binding.partition("/")[0]
    name = binding.partition(" ")[0]
    with pytest.raises(ConfigurationError) as caught:
        configuration.read([str(GIN / "acer_cartpole_v1.gin")], [binding])
    assert str(caught.value) == (
        f"--gin_bindings '{binding}': nothing reads {name}: no value refers to the scope \"{scope}\"{hint}"
    )


def test_scope_may_be_one_that_a_module_of_ones_own_enters(tmp_path, monkeypatch):
    (tmp_path / "toy_scopes.py").write_text("")
    (tmp_path / "x.gin").write_text("import toy_scopes\nmine/Adam.learning_rate = 0.5\n")
    monkeypatch.chdir(tmp_path)
    configuration.read(["x.gin"], [], ["toy_scopes"])
