"""Problems: a model, a loss and data, the user's own or built in."""

from __future__ import annotations

from thalweg.problems.checkpoints import Point, fit_weights, load_weights, open_point
from thalweg.problems.datasets import cifar10, digits, randomize_labels, teacher, teacher_network
from thalweg.problems.forms import as_loss
from thalweg.problems.given import Batches, Whole
from thalweg.problems.images import Images, cache_folder, read_images
from thalweg.problems.load import load_problem, load_stored
from thalweg.problems.loss import Evaluation
from thalweg.problems.misclassification import NearestClass
from thalweg.problems.networks import ACTIVATIONS, MLP, AllConv, activation_module
from thalweg.problems.problem import Problem, Split
from thalweg.problems.reduction import check_reduction
from thalweg.problems.samples import Samples, as_samples
from thalweg.problems.tensor_samples import ImageSamples, TensorSamples
from thalweg.run.trust import trust_entry

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "AllConv",
    "Batches",
    "Evaluation",
    "ImageSamples",
    "Images",
    "NearestClass",
    "Point",
    "Problem",
    "Samples",
    "Split",
    "TensorSamples",
    "Whole",
    "activation_module",
    "as_loss",
    "as_samples",
    "cache_folder",
    "check_reduction",
    "cifar10",
    "digits",
    "fit_weights",
    "load_problem",
    "load_stored",
    "load_weights",
    "open_point",
    "randomize_labels",
    "read_images",
    "teacher",
    "teacher_network",
    "trust_entry",
]
