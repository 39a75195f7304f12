"""A damaged block of a surface is found and computed again; nothing else is."""

from __future__ import annotations

import torch
from safetensors.torch import load

from thalweg.geometry import surface
from thalweg.landscape import Quadratic
from thalweg.run import create_run
from thalweg.run.verify import verify


def test_a_damaged_block_is_computed_again(tmp_path, caplog):
    bowl = Quadratic.of_spectrum(torch.linspace(1, 2, 20, dtype=torch.float64))
    run = create_run(tmp_path / "run", {"kind": "test"})
    whole = surface(bowl, bowl.centre, points=9, run=run)
    path, *others = sorted(run.path.glob("blocks/**/0*.safetensors"))
    content, times = path.read_bytes(), [other.stat().st_mtime_ns for other in others]
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 64]) + content[-8:])
    (found,) = [finding for finding in verify(run) if finding.lost]
    assert found.file == path.relative_to(run.path).as_posix()
    again = surface(bowl, bowl.centre, points=9, run=run)
    assert again.identical(whole)
    # Not byte by byte: safetensors writes the entries of a header in any order.
    renewed, before = load(path.read_bytes()), load(content)
    assert renewed.keys() == before.keys()
    assert all(torch.equal(renewed[name], before[name]) for name in before)
    assert [other.stat().st_mtime_ns for other in others] == times
    assert "computed again" in caplog.text
