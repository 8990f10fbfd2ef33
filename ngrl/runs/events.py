"""TensorBoard's event files, written and read without TensorFlow."""

import io
import itertools
import math
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from ngrl.runs.files import writing

# A process may open two in a folder within a tick of a coarse clock.
_numbers = itertools.count()


class EventFile:
    """An event file; a context that closes it.

    Args:
      folder: Where it goes, beside those that are there.
      replace: Remove those first: a second one with the same steps would show every point twice.

    Raises:
      WriteError: It can't be written, e.g. because the disk is full; every method raises it then.
    """

    def __init__(self, folder: Path, replace: bool = False):
        self._folder = folder
        # Readers, TensorBoard too, take the files of a folder in the order of their names: the time comes first, finer
        # than the second in which a process may follow another.
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        opened = f"{seconds:010d}.{nanoseconds:09d}"
        name = f"events.out.tfevents.{opened}.{socket.gethostname()}.{os.getpid()}.{next(_numbers):09d}.v2"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for earlier in folder.glob("events.out.tfevents.*") if replace else ():
                earlier.unlink()
            self._writer = RecordWriter((folder / name).open("wb"))
        self._write(event_pb2.Event(file_version="brain.Event:2"))

    def _write(self, event: event_pb2.Event) -> None:
        event.wall_time = time.time()
        with writing(self._folder):
            self._writer.write(event.SerializeToString())
            self._writer.flush()  # for who watches

    def add(self, *values: summary_pb2.Summary.Value, step: int = 0) -> None:
        """Write summary values."""
        self._write(event_pb2.Event(step=step, summary=summary_pb2.Summary(value=values)))

    def scalars(self, numbers: Mapping[str, float], step: int = 0) -> None:
        """Write every finite number under its tag; those that were not measured (NaN) leave no point."""
        described = scalar_metadata.create_summary_metadata(display_name="", description="")
        finite = {tag: np.float32(number) for tag, number in numbers.items() if math.isfinite(number)}
        self.add(*(_value(tag, number, described) for tag, number in finite.items()), step=step)

    def picture(self, tag: str, png: bytes, step: int = 0) -> None:
        """Write a picture, given as the content of a PNG file, under its tag."""
        width, height = struct.unpack(">II", png[16:24])
        content = np.array([str(width).encode(), str(height).encode(), png], object)
        described = image_metadata.create_summary_metadata(display_name="", description="")
        self.add(_value(tag, content, described), step=step)

    def image(self, tag: str, pixels: np.ndarray, step: int = 0) -> None:
        """Write a picture [height, width, 3] uint8 under its tag."""
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "png")
        self.picture(tag, png.getvalue(), step)

    def close(self) -> None:
        """Close the file."""
        with writing(self._folder):
            self._writer.close()

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def read_scalars(folder: Path) -> dict[str, list[float]]:
    """The numbers of a folder's event files by tag, in the order of their steps.

    Where two have the same step, as after a run was resumed, the later counts; a file that breaks off ends there.
    """
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in _events(path):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == scalar_metadata.PLUGIN_NAME:
                    found.setdefault(value.tag, {})[event.step] = float(tensor_util.make_ndarray(value.tensor))
    return {tag: [numbers[step] for step in sorted(numbers)] for tag, numbers in found.items()}


def _events(path: Path) -> Iterator[event_pb2.Event]:
    reader = PyRecordReader_New(str(path))
    while True:
        try:
            reader.GetNext()
        except (errors.OutOfRangeError, errors.DataLossError):
            return
        yield event_pb2.Event.FromString(reader.record())


def _value(tag: str, content: Any, described: summary_pb2.SummaryMetadata) -> summary_pb2.Summary.Value:
    return summary_pb2.Summary.Value(tag=tag, tensor=tensor_util.make_tensor_proto(content), metadata=described)
