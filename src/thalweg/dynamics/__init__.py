"""How weights move: training, recording a user's own training, branching."""

from thalweg.dynamics.branch import Branch, BranchTree, branch, moments, perturb, train_branch
from thalweg.dynamics.flow import Flow, gradient_flow
from thalweg.dynamics.record import record
from thalweg.dynamics.recorder import Recorder
from thalweg.dynamics.train import train
from thalweg.dynamics.training import Training, TrainResult

__all__ = [
    "Branch",
    "BranchTree",
    "Flow",
    "Recorder",
    "TrainResult",
    "Training",
    "branch",
    "gradient_flow",
    "moments",
    "perturb",
    "record",
    "train",
    "train_branch",
]
