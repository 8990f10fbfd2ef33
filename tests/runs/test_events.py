"""Event files as TensorBoard reads them."""

import itertools
import math
import os

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ngrl.runs import events as events_module
from ngrl.runs.events import EventFile, read_scalars


def points(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        tag: [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def test_every_finite_number_is_a_point_at_its_step_and_there_while_the_file_is_open(tmp_path):
    with EventFile(tmp_path) as events:
        events.scalars({"a": 1.5, "b": math.nan}, 1)
        events.scalars({"a": 2.0, "b": -3.0, "c": math.inf}, 7)
        assert points(tmp_path) == {"a": [(1, 1.5), (7, 2.0)], "b": [(7, -3.0)]}


def test_files_of_one_second_stand_beside_each_other_unless_they_replace(tmp_path):
    for step in (1, 2):
        with EventFile(tmp_path) as events:
            events.scalars({"a": step}, step)
    assert points(tmp_path) == {"a": [(1, 1), (2, 2)]}
    with EventFile(tmp_path, replace=True) as events:
        events.scalars({"a": 3}, 3)
    assert points(tmp_path) == {"a": [(3, 3)]}
    assert len(list(tmp_path.iterdir())) == 1


def test_points_are_in_the_tab_of_scalars_as_tensorflows_own_are(tmp_path):
    with EventFile(tmp_path / "ours") as events:
        events.scalars({"a": 0.1}, 3)
    with tf.summary.create_file_writer(str(tmp_path / "theirs")).as_default(step=3):
        tf.summary.scalar("a", 0.1)
    ours, theirs = (EventAccumulator(str(tmp_path / name)).Reload() for name in ("ours", "theirs"))
    assert ours.SummaryMetadata("a").plugin_data.plugin_name == theirs.SummaryMetadata("a").plugin_data.plugin_name
    values = [tf.make_ndarray(events.Tensors("a")[0].tensor_proto) for events in (ours, theirs)]
    assert values[0] == values[1]
    assert values[0].dtype == values[1].dtype


def test_an_image_is_decoded_to_the_pixels_that_were_written(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    with EventFile(tmp_path) as events:
        events.image("a", pixels, 4)
    (event,) = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload().Tensors("a")
    width, height, png = tf.make_ndarray(event.tensor_proto)
    assert (event.step, int(width), int(height)) == (4, 7, 5)
    np.testing.assert_array_equal(tf.io.decode_png(png), pixels)


def test_numbers_are_read_as_they_were_written_and_pictures_are_none(tmp_path):
    assert read_scalars(tmp_path / "none") == {}
    with EventFile(tmp_path) as events:
        events.scalars({"a": 1.5, "b": -3.0}, 1)
        events.image("c", np.zeros((2, 2, 3), np.uint8), 1)
        events.scalars({"a": 2.0}, 7)
    assert read_scalars(tmp_path) == {"a": [1.5, 2.0], "b": [-3.0]}


def test_of_points_of_one_step_the_later_counts_and_a_broken_file_to_where_it_breaks(tmp_path):
    for start, value in ((1, 1.0), (3, 10.0)):
        with EventFile(tmp_path) as events:
            for step in range(start, 6):
                events.scalars({"a": value + step}, step)
    assert read_scalars(tmp_path) == {"a": [2.0, 3.0, 13.0, 14.0, 15.0]}
    last = max(tmp_path.iterdir())
    last.write_bytes(last.read_bytes()[:-5])
    assert read_scalars(tmp_path) == {"a": [2.0, 3.0, 13.0, 14.0, 6.0]}


def reversed_processes(monkeypatch):
    pids = itertools.count(1000, -1)
    monkeypatch.setattr(os, "getpid", lambda: next(pids))


def coarse_clock(monkeypatch):
    monkeypatch.setattr(events_module.time, "time_ns", lambda: 10**18)
    monkeypatch.setattr(events_module, "_numbers", itertools.count(9))


@pytest.mark.parametrize("opened", [reversed_processes, coarse_clock])
def test_the_file_that_was_opened_later_is_read_later_by_us_and_by_tensorboard(tmp_path, monkeypatch, opened):
    opened(monkeypatch)
    for value in range(3):
        with EventFile(tmp_path) as events:
            events.scalars({"a": value}, 1)
    assert read_scalars(tmp_path) == {"a": [2.0]}
    assert points(tmp_path) == {"a": [(1, 0.0), (1, 1.0), (1, 2.0)]}
