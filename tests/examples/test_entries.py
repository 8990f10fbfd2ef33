"""What a gin file names in `main.entry`: how it is found, what options of the command line reach it, what it leaves."""

import csv
import json
import sys

import gin
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ngrl import configuration
from ngrl.configuration import operative
from ngrl.configuration.binding import ConfigurationError
from ngrl.examples.geometry import geometry
from ngrl.examples.maximum_likelihood import maximum_likelihood
from ngrl.runs import RunDirectoryError
from ngrl.training import RunContext, configurables

SHORT = {"num_points": 200, "num_steps": 25, "fisher_samples": 100}
PICTURES = ("figure_1", "figure_2", "figure_3")
WAYS = ("gradient_fixed", "natural_fixed", "gradient_metric", "natural_metric", "sampled_metric")


@pytest.fixture(autouse=True)
def _empty_gin():
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short run and what it returned."""
    folder = tmp_path_factory.mktemp("mle") / "run"
    return folder, maximum_likelihood(RunContext(folder), **SHORT)


def events(folder):
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def points(accumulator, tag):
    return {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in accumulator.Tensors(tag)}


def test_main_runs_a_training_run_unless_a_file_names_an_entry():
    configuration.parse(
        [], ["Environment.env_id = 'CartPole-v1'"], entry_options={"seed": "7", "Evaluation.capture_video": "True"}
    )
    assert configuration.bindings()["run.seed"] == "7"
    assert configuration.bindings()["Evaluation.capture_video"] == "True"


def test_seed_reaches_the_entry_that_the_file_names_and_wins_over_the_file(tmp_path):
    file = tmp_path / "x.gin"
    file.write_text("main.entry = @maximum_likelihood\nmaximum_likelihood.seed = 3\n")
    configuration.parse([str(file)], [], entry_options={"seed": "7"})
    assert configuration.bindings()["maximum_likelihood.seed"] == "7"
    assert "run.seed" not in configuration.bindings()


def test_seed_reaches_an_entry_named_by_a_macro_or_in_a_scope_and_fills_a_required_value():
    lines = ["main.entry = %which", "which = @mine/maximum_likelihood", "mine/maximum_likelihood.seed = %gin.REQUIRED"]
    configuration.parse([], lines, entry_options={"seed": "7"})
    assert configuration.bindings()["mine/maximum_likelihood.seed"] == "7"


@pytest.mark.parametrize(
    ("entry", "options", "expected"),
    [
        ("@geometry", {"seed": "1"}, r'^--seed: no parameter "seed" on geometry'),
        ("@geometri", {"seed": "1"}, r'no configurable "geometri"; did you mean "geometry"\?'),
        ("@geometry()", {}, "main.entry must be a function or class, got @geometry"),
        ("'geometry'", {}, 'main.entry must be a function or class, got "geometry"'),
        ("%missing", {"seed": "1"}, "no macro %missing"),
    ],
)
def test_entry_that_cannot_be_is_refused_in_one_line(entry, options, expected):
    with pytest.raises(ConfigurationError, match=expected) as caught:
        configuration.parse([], [f"main.entry = {entry}"], entry_options=options)
    assert "\n" not in str(caught.value)


def test_entry_is_handed_the_context_of_the_command_and_its_result_comes_back():
    context = RunContext("folder", noresume=True)
    assert configurables.main(context, entry=lambda handed: {"handed": handed}) == {"handed": context}


@pytest.mark.parametrize("entry", ["main", "run", "geometry", "maximum_likelihood", "solver_comparison"])
def test_context_of_the_command_is_not_for_gin_files(entry):
    with pytest.raises(ConfigurationError, match=f'parameter "context" of {entry} is not for gin files'):
        configuration.parse([], [f"{entry}.context = 1"])


def test_option_that_the_entry_has_no_use_for_is_refused_before_anything_is_written(tmp_path):
    configuration.parse([], ["main.entry = @geometry"], entry_options={"Evaluation.capture_video": "True"})
    context = RunContext(tmp_path / "run", config=lambda: operative.settled(print))
    with pytest.raises(ConfigurationError, match=r"^--capture_video: nothing reads it\n"):
        configurables.main(context)
    assert not (tmp_path / "run").exists()


def test_maximum_likelihood_leaves_pictures_table_and_record(finished):
    folder, result = finished
    run_json = json.loads((folder / "run.json").read_text())
    assert run_json["status"] == "finished"
    assert run_json["seed"] == 0
    assert run_json["config"]["num_steps"] == "25"
    assert {**run_json["final"], "summary": result["summary"]} == result
    assert result["fisher"]["num_samples"] == 100_000
    assert set(result["trajectories"]) == set(WAYS)
    with (folder / "trajectories.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["trajectory"] for row in rows] == [way for way in WAYS for _ in range(26)]
    for way in WAYS:
        own = [row for row in rows if row["trajectory"] == way]
        assert [int(row["step"]) for row in own] == list(range(26))
        assert (float(own[0]["mu"]), float(own[0]["sigma"])) == (0, 1)
        assert own[0]["step_kl"] == ""
        assert float(own[-1]["mu"]) == result["trajectories"][way]["mu"]
        assert float(own[-1]["kl_to_target"]) == result["trajectories"][way]["kl_to_target"]
    for picture in PICTURES:
        image = tf.io.decode_png((folder / f"{picture}.png").read_bytes()).numpy()
        assert image.shape[1] > 1_000
        assert len(np.unique(image.reshape(-1, image.shape[-1]), axis=0)) > 100
    assert str(folder / "figure_1.png") in "\n".join(result["summary"])


def test_tensorboard_shows_the_same_pictures_and_the_curves_of_every_trajectory(finished):
    folder, result = finished
    pictures = events(folder / "train")
    assert set(pictures.Tags()["tensors"]) == set(PICTURES)
    for picture in PICTURES:
        width, height, *images = tf.make_ndarray(pictures.Tensors(picture)[0].tensor_proto)
        saved = tf.io.decode_png((folder / f"{picture}.png").read_bytes(), channels=3).numpy()
        assert (int(height), int(width)) == saved.shape[:2]
        assert (tf.io.decode_png(images[0], channels=3).numpy() == saved).all()
    for way in WAYS:
        curves = events(folder / "train" / way)
        assert list(points(curves, "mle/mu")) == [0, 10, 20, 25]
        assert list(points(curves, "mle/step_kl")) == [10, 20, 25]  # no step led to the start
        assert points(curves, "mle/sigma")[25] == pytest.approx(result["trajectories"][way]["sigma"], rel=1e-6)
        assert {"Losses/negative_log_likelihood", "ngrl/gradient_norm", "mle/kl_to_target"} <= set(
            curves.Tags()["tensors"]
        )


def test_second_run_in_the_folder_repeats_the_first_and_replaces_its_events(finished):
    folder, _ = finished
    before = (folder / "trajectories.csv").read_bytes()
    maximum_likelihood(RunContext(folder), **SHORT)
    assert (folder / "trajectories.csv").read_bytes() == before
    assert len(list((folder / "train").glob("events*"))) == 1


def test_other_settings_are_refused_in_the_folder_and_noresume_moves_it_aside(tmp_path):
    folder = tmp_path / "run"
    geometry(RunContext(folder))
    before = (folder / "run.json").read_bytes()
    with pytest.raises(RunDirectoryError, match="belongs to another experiment: distance"):
        geometry(RunContext(folder), distance=2.0)
    assert (folder / "run.json").read_bytes() == before
    geometry(RunContext(folder, noresume=True), distance=2.0)
    assert (tmp_path / "run.1" / "run.json").read_bytes() == before
    (distance,) = {
        pair["parameter_distance"] for pair in json.loads((folder / "run.json").read_text())["final"]["pairs"]
    }
    assert distance == 2


def test_geometry_leaves_its_pictures_and_numbers(tmp_path):
    result = geometry(RunContext(tmp_path / "run"))
    divergences = [pair["kl_nats"] for pair in result["pairs"]]
    assert divergences == pytest.approx([1 / 0.18, 1 / 18, 12.5, 0.005], rel=1e-12)
    with (tmp_path / "run" / "pairs.csv").open(encoding="utf-8") as file:
        assert [float(row["kl_nats"]) for row in csv.DictReader(file)] == divergences
    assert set(events(tmp_path / "run" / "train").Tags()["tensors"]) == {"vanheeswijk_figure_2", "vitay_figure_28"}
    for picture in ("vanheeswijk_figure_2", "vitay_figure_28"):
        assert (tmp_path / "run" / f"{picture}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"std": 0.0}, "std must be positive and finite, got 0"),
        ({"mean": float("nan")}, "mean must be finite, got nan"),
        ({"start": (0.0, -1.0)}, "start's σ must be positive and finite, got -1.0"),
        ({"num_steps": 0}, "num_steps must be a positive integer, got 0"),
        ({"num_points": 1}, "num_points must be an integer of at least 2"),
        ({"fisher_samples": 1}, "fisher_samples must be an integer of at least 2"),
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"max_kl": -0.1}, "max_kl must be positive"),
        ({"seed": -1}, "seed must lie between"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(settings, expected, tmp_path):
    with pytest.raises(ValueError, match=expected):
        maximum_likelihood(RunContext(tmp_path / "run"), **settings)
    assert not (tmp_path / "run").exists()


def test_missing_matplotlib_is_named_with_what_to_install_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for entry in (geometry, maximum_likelihood):
        with pytest.raises(ImportError, match=r"figures need matplotlib: pip install 'ngrl\[report\]'"):
            entry(RunContext(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
