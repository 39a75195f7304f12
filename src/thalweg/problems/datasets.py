"""The built-in problems: digits, CIFAR-10 and its kind, and a random teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.errors import InvalidArgument, first_line
from thalweg.problems.images import Images, read_images
from thalweg.problems.misclassification import NearestClass
from thalweg.problems.networks import MLP, AllConv
from thalweg.problems.problem import Problem
from thalweg.problems.tensor_samples import ImageSamples
from thalweg.run.progress import Progress, silent
from thalweg.run.seeds import torch_generator

Network = Literal["allconv", "mlp"]
Target = Literal["class", "onehot", "scalar"]
Activation = str | nn.Module | Callable[[Tensor], Tensor]
Data = tuple[Tensor, Tensor]

_HIDDEN = (64, 64)  # of an MLP


def digits(
    *,
    network: Network = "allconv",
    width: int | None = None,
    widths: Sequence[int] | None = None,
    activation: Activation = "relu",
    batchnorm: bool = True,
    train_size: int = 1437,
    test_size: int | None = None,
    random_labels: float = 0.0,
    target: Target = "class",
    loss: Callable[..., Any] | None = None,
    seed: int = 0,
    data_seed: int = 0,
) -> Problem:
    """
    Make the problem of scikit-learn's digits: 1,797 images of 8x8 in 10 classes.

    Pixels are scaled to zero mean and unit variance over the training images. The order is drawn
    once from ``data_seed``; the first ``train_size`` images train, those after the first 1,437
    test (360), so that the test images stay the same for every ``train_size`` up to there. A larger
    ``test_size`` takes those before them, too, which do not train.

    Parameters
    ----------
    network : {"allconv", "mlp"}
        `AllConv` (by default widths 32, 64, 64: 56,554 weights) or `MLP` (64, 64: 8,970 weights).
    width : int, optional
        All layers' width.
    widths : sequence of int, optional
        Each layer's width.
    activation : str, nn.Module or callable
        By name: ``"relu"``, ``"tanh"``, ``"poly10"``; see `activation_module`.
    batchnorm : bool
        Batch normalization in `AllConv`.
    train_size, test_size : int, optional
        Numbers of images.
    random_labels : float
        Share of the training labels that are replaced: round(share * N) samples, drawn from
        ``data_seed``, each get a label uniform over all classes.
    target : {"class", "onehot", "scalar"}
        Class numbers; rows of 0 and 1; or one number in [-1, 1] for each class, equally spaced.
    loss : callable, optional
        By default cross-entropy for classes, the squared loss otherwise.
    seed : int
        Of the network's initialization.
    data_seed : int
        Of order and random labels.

    Returns
    -------
    Problem
        Named ``"digits"``.
    """
    pixels, labels = _read_digits()
    order = torch.randperm(len(labels), generator=torch_generator(data_seed, "order"))
    x = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8)[order]
    y = torch.from_numpy(labels).long()[order]
    cut = max(train_size, min(1437, len(x) - (test_size or 0)))
    train = _first("train_size", train_size, x[:1796], y)
    test = _first("test_size", test_size, x[cut:], y[cut:])
    std, mean = torch.std_mean(train[0], correction=0)
    train, test = ((train[0] - mean) / std, train[1]), ((test[0] - mean) / std, test[1])
    coder = _Coder(target, 10)
    y_train = randomize_labels(train[1], random_labels, classes=10, seed=data_seed)[0]
    model = _network(
        network, (1, 8, 8), coder.outputs, width, widths, (32, 64, 64), activation, batchnorm, seed
    )
    return Problem(
        model,
        loss or coder.loss(),
        (train[0], coder.encode(y_train)),
        (test[0], coder.encode(test[1])),
        name="digits",
        error=coder.error,
    )


@cache
def _read_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read images and labels once a process; `digits` copies what it takes of them."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels, labels


def cifar10(
    *,
    data: str = "uoft-cs/cifar10",
    network: Network = "allconv",
    width: int | None = None,
    widths: Sequence[int] | None = None,
    activation: Activation = "relu",
    batchnorm: bool = True,
    train_size: int | None = None,
    test_size: int | None = None,
    random_labels: float = 0.0,
    target: Target = "class",
    loss: Callable[..., Any] | None = None,
    seed: int = 0,
    data_seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Problem:
    """
    Make the problem of CIFAR-10 (50,000 + 10,000 images of 3x32x32), or of images in its layout.

    Channels are normalized to zero mean and unit variance over the training images used. Images
    are decoded once and kept in the user's cache folder.

    Parameters
    ----------
    data : str
        Name on the Hugging Face hub, or a folder; see `read_images`.
    network : {"allconv", "mlp"}
        `AllConv` (by default widths 64, 64, 96, 104: 188,570 weights on CIFAR-10) or `MLP`.
    width, widths, activation, batchnorm, random_labels, target, loss, seed
        As for `digits`.
    train_size, test_size : int, optional
        Numbers of images; fewer than all are a random subset, drawn from ``data_seed``.
    data_seed : int
        Of subsets and random labels.
    device : str
        Where network and images are, ``"cpu"``, ``"cuda"`` or ``"mps"``, and so where all is
        evaluated.
        Numbers differ between devices by rounding, and trainings by more.
    progress : Progress
        Shows the decoding.

    Returns
    -------
    Problem
        Named after ``data``.
    """
    train = read_images(data, "train", progress=progress)
    test = read_images(data, "test", progress=progress)
    assert train is not None
    classes = len(train.classes)
    coder = _Coder(target, classes)
    pixels, labels = _subset("train_size", train_size, train, data_seed)
    mean, std = _moments(pixels)
    labels = randomize_labels(labels, random_labels, classes=classes, seed=data_seed)[0]
    shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
    model = _network(
        network, shape, coder.outputs, width, widths, (64, 64, 96, 104), activation, batchnorm, seed
    )
    model = _placed(model, device)  # first: it says what is wrong with a device
    test_samples = None
    if test is not None:
        shown, test_labels = _subset("test_size", test_size, test, data_seed)
        test_targets = coder.encode(test_labels).to(device)
        test_samples = ImageSamples(shown.to(device), test_targets, mean, std)
    return Problem(
        model,
        loss or coder.loss(),
        ImageSamples(pixels.to(device), coder.encode(labels).to(device), mean, std),
        test_samples,
        name="cifar10" if data == "uoft-cs/cifar10" else data.rstrip("/").rpartition("/")[2],
        error=coder.error,
    )


def teacher(
    *,
    inputs: int = 10,
    outputs: int = 1,
    samples: int = 100,
    test_size: int | None = None,
    width: int | None = None,
    widths: Sequence[int] | None = None,
    teacher_widths: Sequence[int] | None = None,
    activation: Activation = "tanh",
    noise: float = 0.0,
    loss: Callable[..., Any] | None = None,
    seed: int = 0,
    data_seed: int = 0,
) -> Problem:
    """
    Make a regression on a random teacher network, which a student of its size can fit exactly.

    Inputs are standard normal, targets the outputs of `teacher_network` plus Gaussian noise.

    Parameters
    ----------
    inputs, outputs : int
        Sizes of a sample, 10 and 1 by default.
    samples, test_size : int
        Number of training samples; of test samples, by default as many.
    width : int, optional
        Of both hidden layers of the student.
    widths : sequence of int, optional
        Of each hidden layer of the student, by default (64, 64): 4,929 weights.
    teacher_widths : sequence of int, optional
        Of the teacher, by default the student's.
    activation : str, nn.Module or callable
        Of both.
    noise : float
        Standard deviation of the noise on training targets.
    loss : callable, optional
        By default the squared loss.
    seed : int
        Of the student's initialization.
    data_seed : int
        Of teacher, inputs and noise.

    Returns
    -------
    Problem
        Named ``"teacher"``.
    """
    sizes = _widths(width, widths, _HIDDEN)
    _check_count("samples", samples)
    if noise < 0:
        raise InvalidArgument(f"noise={noise}; write a standard deviation, 0 or more.")
    master = teacher_network(inputs, teacher_widths or sizes, outputs, activation, data_seed)

    def draw(count: int, split: str) -> Data:
        x = torch.randn(count, inputs, generator=torch_generator(data_seed, "inputs", split))
        with torch.no_grad():
            return x, master(x.double()).float()

    x, y = draw(samples, "train")
    y = y + noise * torch.randn(y.shape, generator=torch_generator(data_seed, "noise"))
    return Problem(
        MLP(inputs, sizes, outputs, activation, seed=seed),
        loss or nn.MSELoss(),
        (x, y),
        draw(_check_count("test_size", test_size or samples), "test"),
        name="teacher",
    )


def teacher_network(
    inputs: int, widths: Sequence[int], outputs: int, activation: Activation, data_seed: int
) -> MLP:
    """Make the teacher, in float64, whose outputs are the targets of `teacher`."""
    # Its own stream of seeds: a student of the same seed must not start at the answer.
    generator = torch_generator(data_seed, "teacher")
    return MLP(inputs, widths, outputs, activation, seed=generator.initial_seed()).double()


def randomize_labels(
    labels: Tensor, share: float, *, classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """
    Replace a share of the labels by random ones.

    Parameters
    ----------
    labels : Tensor
        Shape (N,), int64.
    share : float
        In [0, 1]; round(share * N) samples are drawn.
    classes : int
        Each of them gets a label uniform over so many classes, its own among them.
    seed : int
        Of both draws; a larger share replaces all that a smaller one does.

    Returns
    -------
    labels : Tensor
        Shape (N,), int64.
    drawn : Tensor
        Indices of the samples drawn, int64.

    References
    ----------
    Zhang et al., Understanding deep learning requires rethinking generalization (2017), section 2.
    """
    if not 0 <= share <= 1:
        raise InvalidArgument(f"random_labels={share}; write a share between 0 and 1.")
    generator = torch_generator(seed, "random labels")
    drawn = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    fresh = torch.randint(classes, (len(labels),), generator=generator)
    labels = labels.clone()
    labels[drawn] = fresh[drawn]
    return labels, drawn


class _Coder:
    """What targets are made of labels, and what goes with them."""

    def __init__(self, target: Target, classes: int) -> None:
        if target not in get_args(Target):
            raise InvalidArgument(f"target={target!r}; write 'class', 'onehot' or 'scalar'.")
        self.target, self.classes = target, classes
        self.outputs = 1 if target == "scalar" else classes
        self.error = NearestClass(classes) if target == "scalar" else None

    def loss(self) -> nn.Module:
        return nn.CrossEntropyLoss() if self.target == "class" else nn.MSELoss()

    def encode(self, labels: Tensor) -> Tensor:
        if self.target == "class":
            return labels
        if self.error is not None:
            return self.error.encode(labels)
        return nn.functional.one_hot(labels, self.classes).float()


def _placed(model: nn.Module, device: str) -> nn.Module:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InvalidArgument(
            f"device={device!r}: {first_line(error).rstrip('.')}. Write 'cpu', or a device"
            " that this machine's torch has."
        ) from None


def _network(
    network: Network,
    shape: tuple[int, int, int],
    outputs: int,
    width: int | None,
    widths: Sequence[int] | None,
    default: Sequence[int],
    activation: Activation,
    batchnorm: bool,
    seed: int,
) -> nn.Module:
    if network == "allconv":
        sizes = _widths(width, widths, default)
        return AllConv(shape, outputs, sizes, activation, batchnorm, seed=seed)
    if network == "mlp":
        flat = shape[0] * shape[1] * shape[2]
        return MLP(flat, _widths(width, widths, _HIDDEN), outputs, activation, seed=seed)
    raise InvalidArgument(f"network={network!r}; write 'allconv' or 'mlp'.")


def _widths(
    width: int | None, widths: Sequence[int] | None, default: Sequence[int]
) -> tuple[int, ...]:
    if width is not None and widths is not None:
        raise InvalidArgument(f"width={width} and widths={widths}; write one of them.")
    return tuple(widths) if widths is not None else tuple(width or w for w in default)


def _check_count(name: str, count: int) -> int:
    if not isinstance(count, int) or count < 1:
        raise InvalidArgument(f"{name}={count!r}; write a positive whole number.")
    return count


def _first(name: str, count: int | None, x: Tensor, y: Tensor) -> Data:
    count = _at_most(name, count, len(x))
    return x[:count], y[:count]


def _at_most(name: str, count: int | None, present: int) -> int:
    count = present if count is None else _check_count(name, count)
    if count > present:
        raise InvalidArgument(f"{name}={count}, and there are {present}; write at most {present}.")
    return count


def _subset(name: str, count: int | None, images: Images, seed: int) -> Data:
    present = len(images.labels)
    count = _at_most(name, count, present)
    if count == present:
        return images.pixels, images.labels
    order = torch.randperm(present, generator=torch_generator(seed, "order", name))
    chosen = order[:count].sort().values
    return images.pixels[chosen], images.labels[chosen]


def _moments(pixels: Tensor) -> Data:
    """Give mean and standard deviation of each channel, exactly, a block at a time."""
    first = torch.zeros(pixels.shape[1], dtype=torch.int64)
    second = torch.zeros_like(first)
    for block in pixels.split(4096):
        values = block.to(torch.int64)
        first += values.sum((0, 2, 3))
        second += values.square_().sum((0, 2, 3))
    count = pixels.numel() // pixels.shape[1]
    mean = first.double() / count
    variance = second.double() / count - mean.square()
    # A channel that is constant stays as it is.
    return mean, torch.where(variance > 0, variance, torch.ones_like(variance)).sqrt()
