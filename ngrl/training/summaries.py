"""Event files for TensorBoard."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import tensorflow as tf

from ngrl.runs.files import WriteError, failure


class Summaries:
    """Scalars and pictures for TensorBoard.

    Args:
      folder: Where the event files go.

    Raises:
      WriteError: They can't be written, e.g. because the disk is full; every method raises it then.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        with self._writing():
            self._writer = tf.summary.create_file_writer(str(folder), flush_millis=10_000)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise WriteError(failure(self._folder, error)) from error

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Write every finite scalar under its tag; numbers that were not measured (NaN) leave no point."""
        with self._writing(), self._writer.as_default(step=step):
            for tag, value in scalars.items():
                if math.isfinite(value):
                    tf.summary.scalar(tag, value)

    def write_picture(self, tag: str, png: bytes, step: int) -> None:
        """Write a picture, given as the content of a PNG file, under its tag."""
        with self._writing(), self._writer.as_default(step=step):
            tf.summary.image(tag, tf.io.decode_png(png, channels=3)[tf.newaxis])

    def flush(self) -> None:
        """Have everything written so far in the files; without it, what can't be written goes unnoticed."""
        with self._writing():
            self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._writer.close()
