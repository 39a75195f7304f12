"""Recording a training of Hugging Face, and measuring its model on dict batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw
from thalweg.run import open_run

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from thalweg.integrations.transformers import RecordTraining  # noqa: E402


def tiny() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        num_labels=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertForSequenceClassification(config)


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 20, (24, 6), generator=generator)
    mask = torch.ones_like(tokens)
    mask[::2, 4:] = 0
    return {"input_ids": tokens, "attention_mask": mask, "labels": tokens[:, 0] % 2}


def fit(model: Any, folder: Path, *callbacks: Any) -> None:
    samples = [{name: values[i] for name, values in batch().items()} for i in range(24)]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        logging_steps=4,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    transformers.Trainer(model, arguments, train_dataset=samples, callbacks=[*callbacks]).train()


@pytest.mark.filterwarnings("ignore")
def test_a_training_is_recorded_and_left_as_it_is(tmp_path: Path) -> None:
    plain, recorded = tiny(), tiny()
    fit(plain, tmp_path)
    fit(recorded, tmp_path, RecordTraining(tmp_path / "run", every=5))
    for one, other in zip(plain.parameters(), recorded.parameters(), strict=True):
        assert torch.equal(one, other)
    run = open_run(tmp_path / "run")
    steps = [int(path.name.partition(".")[0]) for path in run.checkpoints("main")]
    assert steps == [0, 5, 10, 12]
    logged = {event["step"]: event for event in run.events()}
    assert [step for step, event in logged.items() if "loss" in event] == [4, 8, 12]
    assert "train_loss" in logged[12]  # the trainer's last word, beside the step's own


def test_a_model_of_the_library_is_measured_on_dicts(tmp_path: Path) -> None:
    model = tiny().double().eval()

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        scores = model(**inputs).logits
        return nn.functional.cross_entropy(scores, batch["labels"], reduction="none")

    risk = tw.EmpiricalRisk(tw.Problem(model, loss, batch()))
    w = risk.space.pack(model)
    with torch.no_grad():
        expected = float(model(**batch()).loss)
    assert risk.value(w) == pytest.approx(expected, rel=1e-12)
    v = torch.randn(len(w), dtype=w.dtype, generator=torch.Generator().manual_seed(1))
    step = 1e-5
    difference = (risk.gradient(w + step * v) - risk.gradient(w - step * v)) / (2 * step)
    assert torch.allclose(risk.hessian(w) @ v, difference, rtol=1e-4, atol=1e-8)
    model.save_pretrained(tmp_path / "saved")  # a hub folder
    assert torch.equal(tw.open_point(risk.problem, tmp_path / "saved").weights(risk.space), w)
