"""TensorBoard's event files, written without TensorFlow."""

import os
import socket
import time
from pathlib import Path

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util


class EventFile:
    """An event file that replaces those of its folder; use it as a context.

    Args:
      folder: Where it goes. Event files that are there are removed: a second one would show every point twice.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.0.v2"
        self._file = (folder / name).open("wb")
        self._writer = RecordWriter(self._file)
        self._write(event_pb2.Event(file_version="brain.Event:2"))

    def _write(self, event: event_pb2.Event) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())

    def add(self, value: summary_pb2.Summary.Value, step: int = 0) -> None:
        """Write a summary value."""
        self._write(event_pb2.Event(step=step, summary=summary_pb2.Summary(value=[value])))

    def scalar(self, tag: str, number: float, step: int = 0) -> None:
        """Write a number under its tag."""
        tensor = tensor_util.make_tensor_proto(np.float32(number))
        metadata = scalar_metadata.create_summary_metadata(display_name="", description="")
        self.add(summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata), step)

    def picture(self, tag: str, png: bytes, width: int, height: int, step: int = 0) -> None:
        """Write a picture of that size in pixels, given as the content of a PNG file, under its tag."""
        content = np.array([str(width).encode(), str(height).encode(), png], object)
        tensor = tensor_util.make_tensor_proto(content)
        metadata = image_metadata.create_summary_metadata(display_name="", description="")
        self.add(summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata), step)

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(self, *failure: object) -> None:
        self._writer.close()
