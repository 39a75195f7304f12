"""What is kept and shown of numbers that are refused at some checkpoints."""

from __future__ import annotations

import math

from thalweg.measurements import learning_coefficient, volume
from thalweg.measurements.checkpoint_rows import rows_dataset
from thalweg.run import create_run

RUNG = dict.fromkeys(learning_coefficient._RUNG, 1.0)


def answer(file, value, reasons=(), **more):
    names = {*learning_coefficient._NUMBERS, *volume._NUMBERS}
    return {
        **dict.fromkeys(names, value),
        "multiplicity": None,
        "status": "refused" if reasons else "converged",
        "reasons": list(reasons),
        "described": {"landscape": "empirical risk"},
        "checkpoint": {"file": file, "notes": ["a note"]},
        "rungs": [{**RUNG, "reasons": []}, {**RUNG, "reasons": ["the virial is 2"]}],
        **more,
    }


ANSWERS = [answer("runs/a.pt", 7.5, multiplicity=2), answer("runs/b.pt", None, ["Too few."])]


def test_what_is_refused_is_nan_in_the_dataset_and_a_dash_in_the_section(tmp_path):
    run = create_run(tmp_path / "run", {"measurement": "volume"})
    for module in (learning_coefficient, volume):
        data = rows_dataset(ANSWERS, module._NUMBERS)
        assert float(data["value"][0]) == 7.5 and math.isnan(float(data["value"][1]))
        assert module.section(run) is None
        run.save_result(module.RESULT, data)
        (table,) = module.section(run).parts
        assert table.rows[0][:3] == ("a.pt", "converged", "7.5")
        assert table.rows[1][:3] == ("b.pt", "refused", "-")
        assert table.note.endswith("b.pt is refused: Too few.")


def test_lines_name_what_is_decided_and_why_the_rest_is_not():
    lines = learning_coefficient.lines({"checkpoints": ANSWERS})
    assert lines[0] == "runs/a.pt: converged" and "multiplicity 2" in lines[2]
    assert [line.rsplit(maxsplit=1)[1] for line in lines if line.startswith("   ")] == [
        *("counts", "yes", "no") * 2
    ]
    refused = lines.index("runs/b.pt: refused")
    assert lines[refused + 2] == "  Too few."
    undecided = answer("a.pt", 7.5)
    assert "multiplicity not decided" in learning_coefficient.lines({"checkpoints": [undecided]})[2]
    assert any("7.5 to 7.5 nats" in line for line in volume.lines({"checkpoints": ANSWERS}))
