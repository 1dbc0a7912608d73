"""transformers' Trainer and collators with these models and tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from rembert.common.errors import ConfigError, InputError  # noqa: E402
from rembert.pt import RemBertTokenizer  # noqa: E402
from tests.frameworks import PT, small_config  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENIZER = Path(__file__).parents[2] / "fixtures" / "tokenizer"
TEXTS = ["The train leaves at seven.", "Der Zug fährt um sieben.", "No.", "¿Qué hora es, por favor?"]


@pytest.fixture(scope="module")
def tokenizer() -> RemBertTokenizer:
    return RemBertTokenizer.from_pretrained(TOKENIZER)


def _config(tokenizer: RemBertTokenizer, **changes: Any) -> Any:
    return small_config(vocab_size=len(tokenizer), max_position_embeddings=40, **changes)


def _arguments(directory: Path, **changes: Any) -> Any:
    settings = {
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 3,
        "learning_rate": 1e-2,
        "max_steps": 8,
        "save_steps": 4,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return transformers.TrainingArguments(output_dir=str(directory), **{**settings, **changes})


def test_train_evaluate_save_and_load(tokenizer: RemBertTokenizer, tmp_path: Path) -> None:
    rows = [{**tokenizer(text), "labels": number % 4} for number, text in enumerate(TEXTS * 3)]
    torch.manual_seed(0)
    model = PT.build(_config(tokenizer, num_labels=4), "sequence-classification")
    settings: dict[str, Any] = {
        "model": model,
        "train_dataset": rows,
        "eval_dataset": rows[:5],
        "processing_class": tokenizer,
        "data_collator": transformers.DataCollatorWithPadding(tokenizer),
        "compute_metrics": lambda found: {"right": (found.predictions.argmax(-1) == found.label_ids).mean()},
    }
    trainer = transformers.Trainer(args=_arguments(tmp_path / "out"), **settings)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"]
    assert 0 <= after["eval_right"] <= 1
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 8

    # The same numbers as the model's own, over a dataset that does not divide by the batch.
    found = trainer.predict(rows[:5])
    batch = tokenizer.pad([{k: v for k, v in row.items() if k != "labels"} for row in rows[:5]], return_tensors="pt")
    with torch.no_grad():
        wanted = model.eval()(**batch).logits.numpy()
    np.testing.assert_allclose(found.predictions, wanted, rtol=1e-4, atol=1e-6)

    # A checkpoint holds weights and tokenizer, not the configuration, which Trainer saves for its own models only.
    checkpoint = tmp_path / "out" / "checkpoint-8"
    with pytest.raises(ConfigError, match="config=RemBertConfig"):
        PT.load(checkpoint, "sequence-classification")
    loaded = PT.load(checkpoint, "sequence-classification", config=model.config)
    again = RemBertTokenizer.from_pretrained(checkpoint)
    assert again(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits.numpy(), wanted, rtol=0, atol=0)

    # Training goes on from a checkpoint as if it had never stopped.
    torch.manual_seed(0)
    other = PT.build(_config(tokenizer, num_labels=4), "sequence-classification")
    resumed = transformers.Trainer(args=_arguments(tmp_path / "again"), **{**settings, "model": other})
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(parameter, dict(model.named_parameters())[name], rtol=1e-4, atol=1e-6)


def test_masked_language_model(tokenizer: RemBertTokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = PT.build(_config(tokenizer), "masked-lm")
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.4)
    batch = collator([tokenizer(text) for text in TEXTS])
    assert (batch["labels"] != -100).any()
    assert (batch["input_ids"] == tokenizer.mask_token_id).any()
    arguments = _arguments(tmp_path, save_strategy="no", gradient_accumulation_steps=2, gradient_checkpointing=True)
    rows = [tokenizer(text) for text in TEXTS * 6]
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, eval_dataset=rows[:3], data_collator=collator
    )
    trainer.train()
    assert model.is_gradient_checkpointing
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    assert trainer.predict(rows[:3]).predictions.shape[-1] == len(tokenizer)  # logits are there in evaluation mode


@pytest.mark.parametrize("head", ["masked-lm", "causal-lm", "token-classification", "sequence-classification"])
def test_accumulation_weighs_labels(head: str, tokenizer: RemBertTokenizer, tmp_path: Path) -> None:
    """Four batches of one row, with few labels and many, train as one batch of four rows does."""
    weights = []
    for size in (1, 4):
        torch.manual_seed(0)
        rates = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"), 0.0)
        model = PT.build(_config(tokenizer, num_labels=4, is_decoder=head == "causal-lm", **rates), head)
        rows = [tokenizer(text, padding="max_length", max_length=16) for text in TEXTS]
        for number, row in enumerate(rows):
            counted = [
                number % 4 if real and place > number else -100 for place, real in enumerate(row["attention_mask"])
            ]
            row["labels"] = number if head == "sequence-classification" else counted
        arguments = _arguments(
            tmp_path / str(size),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size,
            max_steps=1,
            optim="sgd",
            learning_rate=1.0,
            max_grad_norm=0.0,
            save_strategy="no",
        )
        transformers.Trainer(model, arguments, train_dataset=rows).train()
        weights.append({name: each.detach().clone() for name, each in model.named_parameters()})
    for name, each in weights[0].items():
        torch.testing.assert_close(each, weights[1][name], rtol=1e-4, atol=1e-6)


def test_noise_on_embeddings(tokenizer: RemBertTokenizer, tmp_path: Path) -> None:
    """NEFTune of the Trainer, on a batch with padding."""
    sizes: list[tuple[int, ...]] = []
    model = PT.build(_config(tokenizer, num_labels=4), "sequence-classification")
    words = model.get_input_embeddings()
    words.register_forward_hook(lambda _module, _inputs, output: sizes.append(tuple(output.shape)))
    rows = [{**tokenizer(text), "labels": number} for number, text in enumerate(TEXTS)]
    arguments = _arguments(tmp_path, neftune_noise_alpha=5.0, max_steps=1, save_strategy="no")
    collator = transformers.DataCollatorWithPadding(tokenizer)
    transformers.Trainer(model, arguments, train_dataset=rows, data_collator=collator).train()
    assert all(len(size) == 3 for size in sizes)
    assert not hasattr(words, "neftune_noise_alpha")


def test_collators(tokenizer: RemBertTokenizer) -> None:
    config = _config(tokenizer, num_labels=4)
    rows = [tokenizer(text) for text in TEXTS]
    tagged = [{**row, "labels": [number % 4 for number in range(len(row["input_ids"]))]} for row in rows]
    batch = transformers.DataCollatorForTokenClassification(tokenizer)(tagged)
    assert (batch["labels"] == -100).sum() == (batch["attention_mask"] == 0).sum() > 0
    assert PT.build(config, "token-classification")(**batch).loss.isfinite()

    choices = [
        {**tokenizer([text, text], [first, second], max_length=40, truncation=True), "labels": number % 2}
        for number, (text, first, second) in enumerate(zip(TEXTS, TEXTS[1:], TEXTS[2:], strict=False))
    ]
    batch = transformers.DataCollatorForMultipleChoice(tokenizer)(choices)
    assert PT.build(config, "multiple-choice")(**batch).logits.shape == (len(choices), 2)

    answers = [{**row, "start_positions": 1, "end_positions": 2} for row in rows]
    batch = transformers.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)(answers)
    assert batch["input_ids"].shape[1] % 8 == 0
    assert PT.build(config, "question-answering")(**batch).loss.isfinite()

    causal = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)([tokenizer(text) for text in TEXTS])
    decoder = _config(tokenizer, is_decoder=True)
    assert PT.build(decoder, "causal-lm")(**causal).loss.isfinite()


def test_unsupported_checkpointing_is_refused(tokenizer: RemBertTokenizer) -> None:
    model = PT.build(_config(tokenizer), "model")
    for enable in (model.activation_checkpointing_enable, model.gradient_checkpointing_enable):
        with pytest.raises(InputError, match="`every_n_layers=2` and `offload=False`"):
            enable(every_n_layers=2)
