"""What tests need from outside: random numbers, real data and a browser; absent data is a skip."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("THALWEG_TEST_SEED", "0"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Seed what a test and its fixtures draw: the same numbers alone, in any order and process."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


@pytest.fixture(scope="session")
def cifar10_folder() -> Path:
    """Folder of CIFAR-10 in the layout of the Hugging Face hub."""
    default = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("THALWEG_TEST_DATA", default)) / "cifar10"
    if not any(folder.glob("**/train-*.parquet")):
        pytest.skip(f"CIFAR-10 is not in {folder}; set THALWEG_TEST_DATA to the folder above it")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the Chromium executable."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("no chromium on the PATH: pages are not looked at")
    return executable


@pytest.fixture(autouse=True, scope="session")
def state_folder(tmp_path_factory):
    """Keep what tests trust out of the state of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
