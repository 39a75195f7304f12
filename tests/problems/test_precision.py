"""Whatever precision a user allows to torch, what is measured is float32."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from thalweg import Problem
from thalweg.evaluation.call import one_function
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
def as_torch_comes() -> Iterator[None]:
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


def test_every_look_at_the_users_model_is_float32() -> None:
    # In TF32 a loss was said to depend on how samples are put into batches: no GPU could be used.
    torch.set_float32_matmul_precision("high")
    seen: list[tuple[bool, str]] = []

    def note(layer: nn.Module, *_: Any) -> None:
        seen.append((backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))

    model = nn.Linear(2, 1)
    model.register_forward_hook(note)
    risk = EmpiricalRisk(Problem(model, nn.MSELoss(), (torch.randn(9, 2), torch.randn(9, 1))))
    w = risk.space.pack(model)
    risk.value(w), risk.gradient(w), risk.hessian(w) @ w
    assert len(seen) > 8
    assert set(seen) == {(False, "highest")}
