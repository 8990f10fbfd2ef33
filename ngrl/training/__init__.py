"""Training runs: the experiment, its context, checkpoints, evaluation and export."""

from ngrl import _tf_agents  # noqa: F401  isort: skip  (or what to install)
from ngrl.signals import Interrupted
from ngrl.training.checkpoints import CheckpointStore
from ngrl.training.context import RunContext
from ngrl.training.evaluation import EvaluationResult, evaluate
from ngrl.training.experiment import RunResult, run
from ngrl.training.export import PolicyError, export_policy, load_policy
from ngrl.training.final_evaluation import Evaluation

__all__ = [
    "CheckpointStore",
    "Evaluation",
    "EvaluationResult",
    "Interrupted",
    "PolicyError",
    "RunContext",
    "RunResult",
    "evaluate",
    "export_policy",
    "load_policy",
    "run",
]
