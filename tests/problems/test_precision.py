"""Whatever precision a user allows to torch, what is measured is float32."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from thalweg import Problem, train
from thalweg.evaluation.call import one_function
from thalweg.problems import precision
from thalweg.risk import EmpiricalRisk

backends: Any = torch.backends
new_settings = pytest.mark.skipif(
    not hasattr(backends.cudnn, "conv"), reason="torch has a setting a kernel since 2.9"
)


def _kernels() -> list[Any]:
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    return [backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]


def _set_kernels(precision: str) -> None:
    for kernel in _kernels():
        kernel.fp32_precision = precision


def _settings() -> list[Any]:
    """What torch says, a refusal to say included."""
    readers: list[Callable[[], Any]] = [
        lambda: backends.cudnn.allow_tf32,
        lambda: backends.cudnn.deterministic,
        torch.get_float32_matmul_precision,
        *(lambda kernel=kernel: kernel.fp32_precision for kernel in _kernels()),  # type: ignore[misc]
    ]
    return [_read(reader) for reader in readers]


def _read(reader: Callable[[], Any]) -> Any:
    try:
        return reader()
    except RuntimeError:
        return "refused"


@pytest.fixture(autouse=True)
def as_torch_comes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Only where there is a GPU do its kernels matter, and are they set.
    monkeypatch.setattr(precision, "_has_gpu", lambda: True)
    yield
    for kernel in _kernels():
        kernel.fp32_precision = "none"
    backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32, backends.cudnn.deterministic = True, False


def _nothing() -> None:
    """As torch comes: convolutions in TF32."""


def _older() -> None:
    torch.set_float32_matmul_precision("medium")


def _refuse_tf32() -> None:
    backends.cudnn.allow_tf32 = False


def _kernels_tf32() -> None:
    for kernel in _kernels()[:3]:
        kernel.fp32_precision = "tf32"


def _kernels_bf16() -> None:
    for kernel in _kernels()[3:]:
        kernel.fp32_precision = "bf16"


def _everything_tf32() -> None:
    backends.fp32_precision = "tf32"


def _everything_bf16() -> None:
    backends.fp32_precision = "bf16"


@new_settings
@pytest.mark.parametrize(
    "allow", [_nothing, _older, _refuse_tf32, _kernels_tf32, _kernels_bf16, _everything_tf32]
)
def test_float32_is_multiplied_in_float32_inside_and_as_the_user_set_it_after(
    allow: Callable[[], None],
) -> None:
    allow()
    before = _settings()
    with one_function():
        # "none" asks the setting above it, which only counts where that one is a shorter format.
        inherited = backends.fp32_precision not in ("tf32", "bf16")
        for kernel in _kernels():
            assert kernel.fp32_precision == "ieee" or (
                inherited and kernel.fp32_precision == "none"
            )
        assert backends.cudnn.deterministic
    assert _settings() == before


class Note(torch.autograd.Function):
    """The identity, which keeps what torch may do to float32 on the way there and back."""

    seen: ClassVar[list[tuple[str, bool, str]]] = []
    generate_vmap_rule = True

    @classmethod
    def note(cls, way: str) -> None:
        cls.seen.append((way, backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        Note.note("forward")
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        Note.note("backward")
        again: Tensor = Note.apply(slope)
        return again

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.clone()


class Watched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.second(Note.apply(torch.tanh(self.first(x))))
        return answer


def _every_product(risk: EmpiricalRisk, w: Tensor) -> None:
    for operator in (risk.hessian(w), risk.gauss_newton(w), risk.jacobian(w)):
        _ = operator @ w
        _ = operator.T @ torch.ones(operator.shape[0])


@pytest.mark.parametrize(
    "look",
    [
        lambda risk, w: risk.value(w),
        lambda risk, w: risk.gradient(w),
        lambda risk, w: risk.batch_gradient(w, torch.arange(4)),
        lambda risk, w: risk.evaluate_samples(w),
        _every_product,
        lambda risk, w: train(risk, w, epochs=1, batch_size=3, lr=0.1),
    ],
    ids=["value", "gradient", "step", "samples", "products", "training"],
)
def test_every_pass_there_and_back_is_float32(look: Callable[[EmpiricalRisk, Tensor], Any]) -> None:
    # Forward in TF32, a loss was said to depend on how samples are put into batches; backward,
    # gradients were off by 6e-4 on a GPU, and right products were refused for it.
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    Note.seen.clear()
    model = Watched()
    data = torch.randn(9, 2), torch.randn(9, 1)
    risk = EmpiricalRisk(Problem(model, nn.MSELoss(), data))
    checked = len(Note.seen)
    look(risk, risk.space.pack(model))
    assert 0 < checked < len(Note.seen)
    assert {way for way, *_ in Note.seen} == {"forward", "backward"}
    assert {(tf32, products) for _, tf32, products in Note.seen} == {(False, "highest")}


@new_settings
@pytest.mark.parametrize("allow", [_older, _kernels_bf16, _everything_tf32, _everything_bf16])
def test_without_a_gpu_the_cpus_kernels_are_exact(
    allow: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_has_gpu", lambda: False)
    with precision.full_precision():
        assert backends.cudnn.allow_tf32  # as it comes: nothing has been set
    allow()
    before = _settings()
    with precision.full_precision():
        for kernel in _kernels()[3:]:
            assert kernel.fp32_precision == "ieee"
    assert _settings() == before
