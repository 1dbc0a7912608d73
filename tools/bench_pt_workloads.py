"""The measurements of `bench_pt.py` on a CPU, beside transformers: inference, training and generation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench_pt_common import LENGTHS, SIZES, VOCABULARY, mixed, model_of, timed, tokens
from memory import Peak, used_memory


def measure(group: str, name: str, directory: Path) -> dict[str, Any]:
    """One measurement: seconds, and what else belongs to it."""
    if group in ("inference", "full"):
        return inference(name, full=group == "full")
    if group == "trainer":
        return trainer(name, directory)
    others = {"training": training, "mlm": masked_lm, "generation": generation, "pipeline": pipeline}
    return (others | {"released": released})[group](name)


def inference(name: str, full: bool) -> dict[str, Any]:
    import torch

    model, batch = model_of(name, "Model").eval(), mixed(full)
    result: dict[str, Any] = {}
    with torch.inference_mode():
        exact = model(**batch).last_hidden_state
        if name == "bfloat16":
            model = model.bfloat16()
        if name in ("optimized", "bfloat16"):
            model.optimize_for_inference()
        if name in ("int8", "float16"):
            model.quantize_dynamic(name)
        if name in ("optimized", "bfloat16", "int8", "float16"):
            real = batch["attention_mask"].bool()
            difference = (model(**batch).last_hidden_state.float() - exact)[real]
            result["error"] = float(difference.norm() / exact[real].norm())
        result["seconds"] = timed(lambda: model(**batch))
    return result


def training(name: str) -> dict[str, Any]:
    import torch

    model = model_of(name, "ForSequenceClassification", num_labels=3).train()
    batch = {**mixed(), "labels": torch.arange(len(LENGTHS)) % 3}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"seconds": timed(step, 3)}


def inside_transformers(name: str) -> Any:
    """A classifier of transformers' Auto class, of the plug-in if it is imported."""
    import transformers

    if name == "plug-in":
        import rembert.transformers  # noqa: F401
    settings = {"num_hidden_layers": 4, "vocab_size": VOCABULARY, "num_labels": 3, **SIZES}
    return transformers.AutoModelForSequenceClassification.from_config(transformers.RemBertConfig(**settings))


def trainer(name: str, directory: Path) -> dict[str, Any]:
    """Seconds of a training step of transformers' Trainer: the median of those after the first."""
    import torch
    import transformers

    starts: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            starts.append(time.perf_counter())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            starts.append(time.perf_counter())

    rows = [{"input_ids": tokens(length), "labels": number % 3} for number, length in enumerate(LENGTHS)]

    def padded(examples: list[dict[str, Any]]) -> dict[str, Any]:
        ids = torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in examples], batch_first=True)
        labels = torch.tensor([row["labels"] for row in examples])
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}

    size = len(LENGTHS)
    arguments = transformers.TrainingArguments(
        str(directory / "out"), max_steps=3, per_device_train_batch_size=size, learning_rate=1e-5, use_cpu=True,
        report_to="none", disable_tqdm=True, save_strategy="no", logging_strategy="no",
    )  # fmt: skip
    transformers.Trainer(inside_transformers(name), arguments, padded, train_dataset=rows, callbacks=[Clock()]).train()
    return {"seconds": statistics.median(end - start for start, end in pairwise(starts[1:]))}


def pipeline(name: str) -> dict[str, Any]:
    """Seconds of a call of the pipeline with 16 texts of the mixed lengths, tokenized by the same tokenizer."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{number}": number for number in range(1, SIZES.get("vocab_size", VOCABULARY))}
    backend = Tokenizer(models.WordLevel({"[PAD]": 0, **words}, unk_token="[PAD]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    texts = [" ".join(f"w{number}" for number in tokens(length).tolist()) for length in LENGTHS]
    model = inside_transformers(name).eval()
    classify = transformers.pipeline(
        "text-classification", model=model, tokenizer=tokenizer, device="cpu", batch_size=len(texts)
    )
    return {"seconds": timed(lambda: classify(texts))}


def masked_lm(name: str) -> dict[str, Any]:
    step = masked_lm_step(model_of(name, "ForMaskedLM", num_hidden_layers=2, vocab_size=250300))
    own = used_memory("VmRSS")
    with Peak("VmRSS") as peak:
        seconds = timed(step, 2)
    return {"seconds": seconds, "bytes": peak.highest - own}


def masked_lm_step(model: Any) -> Callable[[], None]:
    """A training step on half of the batch of mixed lengths."""
    import torch

    model.train()
    batch = {key: tensor[:8] for key, tensor in mixed().items()}
    chosen = (torch.rand(batch["input_ids"].shape) < 0.15) & batch["attention_mask"].bool()
    batch["labels"] = torch.where(chosen, batch["input_ids"], -100)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def released(name: str) -> dict[str, Any]:
    """A step of the released size; the highest memory of the process, the model and its making included."""
    with Peak("VmRSS") as peak:
        step = masked_lm_step(model_of(name, "ForMaskedLM", num_hidden_layers=32, vocab_size=250300))
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak": peak.highest}


def generation(name: str) -> dict[str, Any]:
    """Seconds a token, over 32 tokens after a prompt of 32 and of 352."""
    import torch

    model = model_of(name, "ForCausalLM", is_decoder=True, vocab_size=250300).eval()
    if name in ("int8", "float16"):
        model.quantize_dynamic(name)
    result: dict[str, Any] = {}
    for prompt in (32, 352):
        ids = tokens(1, prompt)

        def seconds(tokens: int, ids: Any = ids) -> float:
            mask = torch.ones_like(ids)
            arguments = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": None, "attention_mask": mask}
            with torch.inference_mode():
                return timed(lambda: model.generate(ids, **arguments), 3)

        result[f"after_{prompt}"] = (seconds(33) - seconds(1)) / 32
    result["seconds"] = result["after_32"]
    return result
