"""Arguments as people guess them are taken, or refused in words: never a traceback from inside."""

import inspect
import pickle
from types import FunctionType

import numpy as np
import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.run.progress import on_screen, silent

FUNCTIONS = [
    name for name in tw.__all__ if isinstance(inspect.unwrap(getattr(tw, name)), FunctionType)
]
LANDSCAPES = ("landscape", "risk")
WEIGHTS = ("w", "w0", "w1", "starts", "minima", "points", "path")


@pytest.fixture(scope="module")
def risk():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    x = torch.randn(12, 2)
    problem = tw.Problem(model, nn.CrossEntropyLoss(), (x, (x[:, 0] > 0).long()))
    return tw.EmpiricalRisk(problem)


@pytest.fixture(scope="module")
def right(risk):
    """What each required argument of the public functions may be."""
    w = risk.space.pack(risk.problem.model)
    matrix = torch.stack([w, 0.9 * w])
    known = dict.fromkeys(LANDSCAPES, risk) | dict.fromkeys(("w", "w0", "w1"), w)
    known |= dict.fromkeys(("starts", "minima", "points", "path"), matrix)
    return known | {
        "problem": risk.problem,
        "space": risk.space,
        "op": torch.eye(3),
        "k": 1,
        "height": 1.0,
        "level": 1.0,
        "generator": torch.Generator().manual_seed(0),
        "optimizer": None,
        "model": risk.problem.model,
        "run": "nowhere",
        "config": {},
        "trajectory": [],
        "entry": "digits",
        "source": "nowhere.pt",
        "folder": ".",
        "line": None,
        "measured": None,
        "result": None,
        "run_or_weights": w,
    }


def guesses(name, risk):
    """What people write instead of an argument, none of which can be meant."""
    model = risk.problem.model
    if name in LANDSCAPES:
        return [risk.problem, "digits", model, torch.zeros(3), None, 3, {}]
    if name in WEIGHTS:
        return ["nowhere.pt", model, {}, None, 3, object()]
    return [object(), nn.Linear(2, 2)]


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "create_run"])
def test_a_wrong_argument_is_refused_in_words(name, risk, right, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = getattr(tw, name)
    required = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
    ]
    asked = 0
    for wrong in required:
        if wrong.name in ("result", "model", "optimizer", "trajectory"):
            continue  # of a kind of their own, tested where they are
        for guess in guesses(wrong.name, risk):
            given = [
                guess if parameter is wrong else right[parameter.name] for parameter in required
            ]
            positional = [
                value
                for value, parameter in zip(given, required, strict=True)
                if parameter.kind != parameter.KEYWORD_ONLY
            ]
            keywords = {
                parameter.name: value
                for value, parameter in zip(given, required, strict=True)
                if parameter.kind == parameter.KEYWORD_ONLY
            }
            with pytest.raises(tw.ThalwegError) as refused:
                function(*positional, **keywords)
            assert "Traceback" not in str(refused.value) and len(str(refused.value)) > 20
            asked += 1
    assert asked or name in ("explain", "plot")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_number_of_the_wrong_kind_is_refused_by_name(name, right):
    function = getattr(tw, name)
    parameters = inspect.signature(function).parameters
    required = {
        key: right[key]
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
    }
    first = [
        v for k, v in required.items() if parameters[k].kind == inspect.Parameter.POSITIONAL_ONLY
    ]
    by_name = {
        k: v for k, v in required.items() if parameters[k].kind != inspect.Parameter.POSITIONAL_ONLY
    }
    for key, parameter in parameters.items():
        if parameter.annotation in ("int", "float"):
            with pytest.raises(tw.ThalwegError, match=f"{key} of tw.{name} is 'many'"):
                function(*first, **{**by_name, key: "many"})


@pytest.mark.parametrize(
    ("path", "config", "words"),
    [
        (None, {}, "path of tw.create_run is None; write a path"),
        (torch.zeros(3), {}, "path of tw.create_run is a Tensor"),
        ("nowhere", None, "config of tw.create_run is None; write a dict"),
        ("nowhere", "digits", "config of tw.create_run is 'digits'; write a dict"),
    ],
)
def test_a_run_made_of_something_else_is_refused(path, config, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tw.ThalwegError, match=words):
        tw.create_run(path, config)
    assert not (tmp_path / "nowhere").exists()
    assert tw.create_run("nowhere", {}).path == tmp_path / "nowhere"


def test_what_can_mean_one_thing_only_is_taken(risk, tmp_path):
    w = risk.space.pack(risk.problem.model)
    expected = tw.surface(risk, w, points=3)
    path = tmp_path / "a.pt"
    torch.save(risk.problem.model.state_dict(), path)
    run = str(tmp_path / "run")
    guessed = tw.surface(risk, w.numpy(), points=np.int64(3), run=run, progress=True)
    assert np.array_equal(guessed.loss, expected.loss)
    assert tw.open_run(run).path.name == "run"
    at_path = tw.barrier(risk, path, str(path), points=3)
    assert np.array_equal(at_path.loss, tw.barrier(risk, w, w, points=3).loss)
    in_numbers = tw.top_eigenvalues(np.diag([1.0, 2.0]), 1.0, progress=None)
    assert in_numbers.values.tolist() == pytest.approx([2.0])
    directions = tw.random_directions(risk.space, w, 2)
    along = tw.surface(risk, w, directions=directions.numpy(), points=3)
    assert np.array_equal(along.loss, tw.surface(risk, w, directions=directions, points=3).loss)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"directions": "principal"}, "principal_directions"),
        ({"directions": "random"}, "directions=2"),
        ({"directions": [1, 2]}, "number of random directions"),
        ({"run": 3}, "the path of one"),
        ({"progress": "yes"}, "True for a bar"),
        ({"seed": 0.5}, "a whole number"),
        ({"run": "made/only/if/nothing/is/refused", "task_timeout": "long"}, "a number"),
    ],
)
def test_a_guess_that_can_mean_several_things_is_refused(
    keywords, words, risk, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    w = risk.space.pack(risk.problem.model)
    with pytest.raises(tw.ThalwegError, match=words):
        tw.surface(risk, w, points=3, **keywords)
    assert not list(tmp_path.iterdir())


def test_an_integer_array_or_a_whole_state_is_no_vector_of_weights(risk):
    state = risk.problem.model.state_dict()
    with pytest.raises(tw.ThalwegError, match=r"int64.*expected a tensor of weights"):
        tw.flatness(risk, np.arange(3))
    with pytest.raises(tw.ThalwegError, match="open_point"):
        tw.flatness(risk, state)
    with pytest.raises(tw.ThalwegError, match="load_into"):
        tw.flatness(risk, tw.open_point(risk.problem, state))
    with pytest.raises(tw.ThalwegError, match=r"expected checkpoints by name or in a list"):
        tw.inspect(risk.problem, "a.pt")
    with pytest.raises(tw.ThalwegError, match=r"risk\.hessian\(w\)"):
        tw.trace(risk)


@pytest.mark.parametrize("name", ["EmpiricalRisk", "Problem", "ParameterSpace", "Run"])
def test_a_class_made_of_something_else_is_refused_in_words(name, risk):
    model, (x, y) = risk.problem.model, risk.problem.train
    rest = {"Problem": (nn.CrossEntropyLoss(), (x, y))}.get(name, ())
    wrong = [None, 3, model, object()] if name != "Problem" else [None, 3, "net", object()]
    for guess in wrong:
        with pytest.raises(tw.ThalwegError) as refused:
            getattr(tw, name)(guess, *rest)
        assert len(str(refused.value)) > 20
    if name == "EmpiricalRisk":
        for guess, words in (("digits", "load_problem"), (risk, r"risk\.problem")):
            with pytest.raises(tw.ThalwegError, match=words):
                tw.EmpiricalRisk(guess)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"dtype": "int8"}, "write torch.float32 or torch.float64"),
        ({"dtype": 64}, "write torch.float32"),
        ({"dtype": float}, "write torch.float32"),
        ({"device": "gpu"}, "torch knows none of that name"),
        ({"device": 3.5}, "torch knows none"),
        ({"batch_size": "many"}, "batch_size of tw.EmpiricalRisk is 'many'; write a whole number"),
        ({"batch_size": 4.5}, "a whole number"),
        ({"memory": "1GB"}, "a whole number"),
    ],
)
def test_options_of_a_risk_are_refused_in_words(keywords, words, risk):
    with pytest.raises(tw.ThalwegError, match=words):
        tw.EmpiricalRisk(risk.problem, check=False, **keywords)


def test_what_a_class_can_only_mean_is_taken(risk, tmp_path):
    problem = risk.problem
    for dtype in ("float64", "torch.float64", np.float64, torch.float64):
        assert tw.EmpiricalRisk(problem, dtype=dtype, check=False).dtype == torch.float64
    how = {"batch_size": 4.0, "memory": 1e9, "device": "cpu", "check": False}
    assert tw.EmpiricalRisk(problem, **how).batch_size == 4
    x, y = problem.train
    by_class = tw.Problem(problem.model, nn.CrossEntropyLoss, (x.numpy(), y.numpy()))
    w = risk.space.pack(problem.model)
    assert tw.EmpiricalRisk(by_class, check=False).value(w) == pytest.approx(risk.value(w))
    for wrong in ({"weight": 3}, {"error": "top1"}):
        with pytest.raises(tw.ThalwegError, match="write a function, or leave it out"):
            tw.Problem(problem.model, nn.CrossEntropyLoss(), (x, y), **wrong)
    assert tw.Run(str(tmp_path)).path == tmp_path


def test_public_classes_stay_what_they_are(risk):
    from thalweg.problems import Problem
    from thalweg.risk import EmpiricalRisk

    assert tw.EmpiricalRisk is EmpiricalRisk and tw.Problem is Problem
    assert list(inspect.signature(Problem).parameters)[:3] == ["model", "loss", "train"]
    assert "self" not in inspect.signature(EmpiricalRisk).parameters

    class Mine(tw.EmpiricalRisk):
        pass

    assert isinstance(Mine(risk.problem, check=False), EmpiricalRisk)
    space = pickle.loads(pickle.dumps(risk.space))
    assert space == risk.space and type(space) is tw.ParameterSpace
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'problem'"):
        tw.EmpiricalRisk()


def test_public_functions_stay_what_they_are():
    from thalweg.boundary import guarded

    assert inspect.signature(tw.surface) == inspect.signature(tw.surface.__wrapped__)
    assert pickle.loads(pickle.dumps(tw.surface)) is tw.surface
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'w'"):
        tw.flatness(None)

    def shown(progress: "Progress" = silent):  # noqa: F821
        return progress

    assert guarded(shown)(True) is on_screen
    assert guarded(shown)(False) is silent
