"""Training inside transformers: Trainer and PEFT with these models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers.utils.generic import find_labels  # noqa: E402

import rembert.pt  # noqa: E402
from rembert.common.parameters import HEADS  # noqa: E402
from rembert.transformers import RemBertTokenizer, models  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENIZER = Path(__file__).parents[1] / "fixtures" / "tokenizer" / "sentencepiece.model"
TEXTS = ["The train leaves at seven.", "Der Zug fährt um sieben.", "No.", "¿Qué hora es, por favor?"]
RATES = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"), 0.0)


@pytest.fixture(scope="module")
def tokenizer() -> RemBertTokenizer:
    return RemBertTokenizer(TOKENIZER)


def _build(head: str, **settings: Any) -> Any:
    config = transformers.RemBertConfig(
        vocab_size=32000, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        input_embedding_size=8, output_embedding_size=10, num_labels=4, is_decoder=head == "causal-lm", **settings,
    )  # fmt: skip
    torch.manual_seed(0)
    return getattr(models, HEADS[head].architecture)(config)


def _arguments(directory: Path, **changes: Any) -> Any:
    settings = {"learning_rate": 1e-2, "max_steps": 4, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    return transformers.TrainingArguments(output_dir=str(directory), **{**settings, **changes})


def _rows(tokenizer: RemBertTokenizer) -> list[dict[str, Any]]:
    return [{**tokenizer(text), "labels": number} for number, text in enumerate(TEXTS)]


def test_what_trainer_saves_loads_by_auto_classes(tokenizer: RemBertTokenizer, tmp_path: Path) -> None:
    model = _build("sequence-classification")
    rows = _rows(tokenizer)
    trainer = transformers.Trainer(
        model, _arguments(tmp_path, gradient_checkpointing=True, neftune_noise_alpha=1.0),
        train_dataset=rows * 4, eval_dataset=rows, processing_class=tokenizer,
    )  # fmt: skip
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    wanted = torch.from_numpy(trainer.predict(rows).predictions)
    saved = tmp_path / "checkpoint-4"
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(saved)
    again = transformers.AutoTokenizer.from_pretrained(saved)
    assert (type(loaded), type(again)) == (type(model), RemBertTokenizer)
    with torch.no_grad():
        found = loaded(**again(TEXTS, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_trainer_finds_the_labels(head: str) -> None:
    """By the names of the arguments of `forward`: one that is not a label would end evaluation without a loss."""
    for package in (models, rembert.pt):
        assert tuple(find_labels(getattr(package, HEADS[head].architecture))) == HEADS[head].labels


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="plain"),
        pytest.param({"label_smoothing_factor": 0.1}, id="smoothed", marks=pytest.mark.slow),
    ],
)
def test_accumulation_weighs_tokens(tokenizer: RemBertTokenizer, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Four batches of one row of another length train as one batch of four rows does."""
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    weights = []
    for size in (1, 4):
        model = _build("causal-lm", **RATES)
        arguments = _arguments(
            tmp_path / str(size), per_device_train_batch_size=size, gradient_accumulation_steps=4 // size, max_steps=1,
            optim="sgd", learning_rate=1.0, max_grad_norm=0.0, save_strategy="no", **settings,
        )  # fmt: skip
        rows = [tokenizer(text) for text in TEXTS]
        trainer = transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, data_collator=collator)
        trainer.train()
        assert trainer.evaluate()["eval_loss"] > 0
        weights.append({name: each.detach().clone() for name, each in model.named_parameters()})
    for name, each in weights[0].items():
        torch.testing.assert_close(each, weights[1][name], rtol=1e-4, atol=1e-6)


def test_lora(tokenizer: RemBertTokenizer, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    _build("sequence-classification").save_pretrained(tmp_path / "base")

    def load() -> Any:
        return transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base").eval()

    settings = peft.LoraConfig(task_type="SEQ_CLS", r=2, init_lora_weights=False)
    torch.manual_seed(1)
    adapted = peft.get_peft_model(load(), settings)
    transformers.Trainer(
        adapted, _arguments(tmp_path / "out", save_strategy="no"), train_dataset=_rows(tokenizer),
        processing_class=tokenizer,
    ).train()  # fmt: skip
    adapted.eval().save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        wanted = adapted(**batch).logits
        assert not torch.allclose(wanted, load()(**batch).logits, atol=1e-3)
        for found in (
            peft.PeftModel.from_pretrained(load(), tmp_path / "adapter"),
            peft.AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=4),
            adapted.merge_and_unload(),
        ):
            torch.testing.assert_close(found.eval()(**batch).logits, wanted, rtol=0, atol=1e-5)

        inside = load()
        inside.add_adapter(settings)
        wanted = inside.eval()(**batch).logits
        inside.save_pretrained(tmp_path / "inside")
        for found in (load(), None):
            if found is None:  # transformers finds the base by the adapter's file
                found = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "inside")
            else:
                found.load_adapter(str(tmp_path / "inside"))
            torch.testing.assert_close(found.eval()(**batch).logits, wanted, rtol=0, atol=1e-5)
