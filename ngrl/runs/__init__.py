"""A run's directory and the files in it: who writes them, and who reads them. No TensorFlow here."""

from ngrl.runs.directory import RunDirectory, RunDirectoryError
from ngrl.runs.episodes import Episode, EpisodeLog, Episodes, EpisodesError
from ngrl.runs.files import CheckpointError, WriteError
from ngrl.runs.record import RunRecordError, read_record

__all__ = [
    "CheckpointError",
    "Episode",
    "EpisodeLog",
    "Episodes",
    "EpisodesError",
    "RunDirectory",
    "RunDirectoryError",
    "RunRecordError",
    "WriteError",
    "read_record",
]
