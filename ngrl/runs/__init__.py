"""A run's directory and the files in it: who writes them, and who reads them. No TensorFlow here."""

from ngrl.runs.directory import RunDirectory, RunDirectoryError
from ngrl.runs.episodes import Episode, EpisodeLog, Episodes
from ngrl.runs.files import CheckpointError, ReadError, WriteError
from ngrl.runs.record import Status, read_record

__all__ = [
    "CheckpointError",
    "Episode",
    "EpisodeLog",
    "Episodes",
    "ReadError",
    "RunDirectory",
    "RunDirectoryError",
    "Status",
    "WriteError",
    "read_record",
]
