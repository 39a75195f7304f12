"""What tests need from outside: real data and a browser, each a skip with its reason if absent."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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
