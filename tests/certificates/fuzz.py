"""Fuzzed networks: what is certified of them has to hold of the module that is there.

``python -m certificates.fuzz --start 0 --stop 5000 --out fuzz.jsonl`` (in tests/, with the package
on the path) appends one line a network, and goes on where the file ends.
"""

from __future__ import annotations

import argparse
import copy
import json
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

import thalweg as tw
from certificates.fuzz_models import FAR, HARMLESS, OTHERS, TOUCHES, Plain
from thalweg.errors import ThalwegError
from thalweg.polynomial import PolynomialActivation

BENDS = [
    *(nn.Tanh, nn.Tanh, nn.Sigmoid, nn.ReLU, nn.Softplus, nn.SiLU, nn.GELU),
    lambda: nn.LeakyReLU(0.1),
    lambda: PolynomialActivation.from_coefficients([0.1, 1.0, 0.3, 0.2]),
]
DATA = ["random", "random", "outliers", "outliers", "alike", "contradictory", "one-hot", "tiny"]
STEP = 1e-5
CORNERS = 24


class Case:
    """One network with its data, and the module itself for the truth."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        choose = self.rng.integers
        self.inputs, self.outputs, self.samples = choose(2, 4), choose(1, 4), int(choose(3, 7))
        hidden = int(choose(6, 16))
        kinds = HARMLESS if choose(2) else OTHERS
        kind, bend = kinds[choose(len(kinds))], BENDS[choose(len(BENDS))]
        arguments = (int(self.inputs), hidden, int(self.outputs), bend, bool(choose(4) == 0))
        model = kind(*arguments).double().eval()
        touches = [list(TOUCHES)[choose(len(TOUCHES))]] if choose(3) == 0 else []
        plain = Plain(*arguments).double().eval()
        plain.load_state_dict(model.state_dict(), strict=False)
        self.data = str(DATA[choose(len(DATA))])
        self.x, self.y = self._drawn()
        # Zeros of the plain network, at which others may have none, or zeros of their own.
        trained = plain if choose(2) else None
        if trained is not None:
            self._solve(plain)
            model.load_state_dict(plain.state_dict(), strict=False)
        for touch in touches:
            TOUCHES[touch](model)
        if trained is None:
            self._solve(model)
        self.model, self.name = model.eval(), " + ".join([kind.__name__, *touches])

    def _drawn(self) -> tuple[torch.Tensor, torch.Tensor]:
        shape = self.samples, int(self.inputs)
        x = torch.randn(shape, dtype=torch.float64).clamp(-0.9 * FAR, 0.9 * FAR)
        y = torch.randn(self.samples, int(self.outputs), dtype=torch.float64)
        if self.data == "outliers":
            x[0], x[1] = 1.2 * FAR, 2 * FAR
        elif self.data in ("alike", "contradictory"):
            x[1] = x[0]
            y[1] = y[0] if self.data == "alike" else y[1]
        elif self.data == "one-hot":
            y = nn.functional.one_hot(torch.arange(self.samples) % self.outputs, self.outputs)
        elif self.data == "tiny":
            x[0, 0] = 10.0 ** -float(self.rng.integers(60, 320))
        return x, y.double()

    def _solve(self, model: nn.Module) -> None:
        """Step towards a zero of a module by Gauss-Newton on differences."""
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        w = vector(model, names)
        for _ in range(20):
            residual = outputs(model, names, w, self.x) - self.y.numpy().ravel()
            if not np.isfinite(residual).all() or np.linalg.norm(residual) < 1e-13:
                break
            jacobian = differences(lambda v: outputs(model, names, v, self.x), w)
            step = np.linalg.lstsq(jacobian, residual, rcond=1e-10)[0]
            w = w - step * min(1.0, 3.0 / max(np.linalg.norm(step), 1e-300))
        load(model, names, w)

    def labels(self) -> torch.Tensor:
        """Classes that the module gives the samples, or sides of zero."""
        with torch.no_grad():
            given = copy.deepcopy(self.model)(self.x.clone())
        return given.argmax(1) if self.outputs > 1 else (given > 0).double()


def vector(model, names) -> np.ndarray:
    parameters = dict(model.named_parameters())
    return np.concatenate([parameters[name].detach().numpy().ravel() for name in names])


def load(model, names, w) -> None:
    parameters, start = dict(model.named_parameters()), 0
    for name in names:
        target = parameters[name]
        stop = start + target.numel()
        target.data.copy_(torch.from_numpy(w[start:stop]).reshape(target.shape))
        start = stop


def outputs(model, names, w, x) -> np.ndarray:
    """What the module itself answers with these weights, as the user would call it."""
    load(model, names, w)
    with torch.no_grad():
        return model(x.clone()).numpy().ravel().copy()


def differences(function, w, step=STEP) -> np.ndarray:
    columns = []
    for k in range(len(w)):
        ahead, behind = w.copy(), w.copy()
        ahead[k] += step
        behind[k] -= step
        columns.append((function(ahead) - function(behind)) / (ahead[k] - behind[k]))
    return np.array(columns).T


def judge_zero(case: Case, names, w, found) -> list[str]:
    """Say what does not hold of a certificate of a zero."""
    model, y = copy.deepcopy(case.model), case.y.numpy().ravel()

    def residual(v):
        return outputs(model, names, v, case.x) - y

    wrong = []
    if found.weights != len(w):
        wrong.append(f"W is {len(w)}, not {found.weights}")
    first = residual(w)
    rounding = 1e-12 * (1 + np.linalg.norm(y))
    if not all(np.array_equal(first, residual(w)) for _ in range(8)):
        wrong.append("the module answers otherwise each time")
    if np.linalg.norm(first) > 2 * found.residual + rounding:
        wrong.append(f"residual {np.linalg.norm(first):.3g} above {found.residual:.3g}")
    step = min(STEP, max(found.radius / 4, 1e-8))
    tolerance = 1e-13 / step + 100 * step**2
    sizes = np.linalg.svd(differences(residual, w, step), compute_uv=False)
    rank = int((sizes > 100 * tolerance).sum())
    if found.singular_value > 1000 * tolerance and rank != found.equations:
        wrong.append(f"rank {rank}, not {found.equations}")
    if found.nullity != len(w) - found.equations:
        wrong.append(f"nullity {found.nullity}")
    if not found.notes and len(sizes) >= found.equations:
        smallest = sizes[found.equations - 1]
        if smallest < found.singular_value * (1 - 1e-6) - tolerance:
            wrong.append(f"singular value {smallest:.6g} below {found.singular_value:.6g}")
        for _ in range(3):
            way = case.rng.normal(size=len(w))
            there = w + way * (found.radius / np.linalg.norm(way)) * 0.99
            near = np.linalg.svd(differences(residual, there, step), compute_uv=False)
            if near[found.equations - 1] < found.slope * (1 - 1e-6) - tolerance:
                wrong.append(f"singular value {near[found.equations - 1]:.6g} in the ball")
    end = w.copy()
    for _ in range(4):
        jacobian = differences(residual, end, step)
        end = end - np.linalg.lstsq(jacobian, residual(end), rcond=1e-9)[0]
    left, moved = np.linalg.norm(residual(end)), np.linalg.norm(end - w)
    if left > rounding:
        wrong.append(f"no zero: {left:.3g} is left")
    if moved > found.distance * 1.01 + rounding / max(found.slope, 1e-12):
        wrong.append(f"the zero is {moved:.3g} away, not {found.distance:.3g}")
    return wrong


def judge_box(case: Case, names, w, labels, found) -> list[str]:
    """Search a box of weights for one that misclassifies, at corners and against margins."""
    model, several = copy.deepcopy(case.model), case.outputs > 1
    classes = labels.numpy().astype(int).ravel()

    def margins(v):
        given = outputs(model, names, v, case.x).reshape(len(classes), -1)
        if not several:
            return np.where(classes == 1, given[:, 0], -given[:, 0])
        own = given[np.arange(len(given)), classes]
        given[np.arange(len(given)), classes] = -np.inf
        return own - given.max(axis=1)

    slopes = differences(margins, w)
    corners = [-np.sign(row) for row in slopes]
    corners += [case.rng.choice([-1.0, 1.0], size=len(w)) for _ in range(CORNERS)]
    least = min(margins(w + corner * found.half_width).min() for corner in corners)
    inside = found.half_width > 0 and np.isfinite(found.half_width)
    return [] if least > 0 and inside else [f"a margin in the box is {least:.3g}"]


def examine(seed: int) -> dict:
    """Make one network, ask for both certificates, and judge them."""
    answer = {"seed": seed, "zero": "error", "margin": "error", "false": [], "error": ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case = Case(seed)
            answer |= {"kind": case.name, "data": case.data}
            answer |= _zero(case)
            answer |= _margin(case, answer["false"])
    except Exception:
        answer["error"] = traceback.format_exc(limit=-3)
    return answer


def _zero(case: Case) -> dict:
    try:
        problem = tw.Problem(case.model, nn.MSELoss(), (case.x, case.y))
        risk = tw.EmpiricalRisk(problem, dtype=torch.float64, check=False)
        w = risk.space.pack(case.model).double()
        found = tw.certify_zero(risk, w, strict=bool(case.rng.integers(4) == 0))
    except ThalwegError as error:
        return {"zero": "error of ours", "why": str(error)[:120]}
    if found.verdict != "certified":
        return {"zero": found.verdict, "why": found.reasons[0][:120]}
    wrong = judge_zero(case, list(risk.space.names), w.numpy().copy(), found)
    return {"zero": "certified", "false": [f"zero: {words}" for words in wrong]}


def _margin(case: Case, false: list[str]) -> dict:
    labels = case.labels()
    loss = nn.CrossEntropyLoss() if case.outputs > 1 else nn.BCEWithLogitsLoss()
    try:
        problem = tw.Problem(case.model, loss, (case.x, labels))
        risk = tw.EmpiricalRisk(problem, dtype=torch.float64, check=False)
        w = risk.space.pack(case.model).double()
        found = tw.certify_margin(risk, w)
    except ThalwegError as error:
        return {"margin": "refused", "margin_why": str(error)[:120]}
    if found.verdict != "certified":
        return {"margin": found.verdict, "margin_why": found.reasons[0][:120]}
    wrong = judge_box(case, list(risk.space.names), w.numpy().copy(), labels, found)
    return {"margin": "certified", "false": false + [f"box: {words}" for words in wrong]}


def main() -> None:
    """Examine a range of seeds; go on where the file of results ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--stop", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    done = {json.loads(line)["seed"] for line in lines}
    with options.out.open("a") as file:
        for seed in range(options.start, options.stop):
            if seed not in done:
                file.write(json.dumps(examine(seed)) + "\n")
                file.flush()


if __name__ == "__main__":
    main()
