"""The pipelines of transformers 5.23 that fit a RemBERT, each with transformers' own model and with the plug-in's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.pipelines import SUPPORTED_TASKS  # noqa: E402

from rembert.common.parameters import HEADS  # noqa: E402
from rembert.transformers import RemBertTokenizer, models  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENIZER = Path(__file__).parents[1] / "fixtures" / "tokenizer" / "sentencepiece.model"
TEXTS = ["The train leaves at seven.", "Der Zug nach Berlin fährt um sieben, wenn er fährt.", "No."]
CALLS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "feature-extraction": ("model", TEXTS, {}),
    "fill-mask": ("masked-lm", [f"{text} [MASK]" for text in TEXTS], {"top_k": 3}),
    "text-classification": ("sequence-classification", TEXTS, {"top_k": None}),
    "token-classification": ("token-classification", TEXTS, {"aggregation_strategy": "first"}),
    "text-generation": ("causal-lm", TEXTS, {"max_new_tokens": 4, "do_sample": False}),
    "zero-shot-classification": (
        "sequence-classification", TEXTS, {"candidate_labels": ["travel", "food"], "multi_label": True},
    ),
}  # fmt: skip
LABELS = ("contradiction", "neutral", "entailment")
# Tasks of audio, images and choices between several of these, whose inputs a RemBERT does not take.
OTHER = {"zero-shot-audio-classification", "image-feature-extraction", "decision"}


def test_all_are_tested() -> None:
    """The tasks one of whose Auto classes has a RemBERT."""
    fitting = {
        task
        for task, entry in SUPPORTED_TASKS.items()
        if any(transformers.RemBertConfig in vars(auto)["_model_mapping"] for auto in entry["pt"])
    }
    assert fitting - OTHER <= set(CALLS)


@pytest.mark.parametrize("task", CALLS)
def test_results_are_those_of_transformers(task: str) -> None:
    head, texts, settings = CALLS[task]
    config = transformers.RemBertConfig(
        vocab_size=32000, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        input_embedding_size=8, output_embedding_size=10, initializer_range=0.3, is_decoder=head == "causal-lm",
        id2label=dict(enumerate(LABELS)), label2id={name: index for index, name in enumerate(LABELS)}, bos_token_id=2,
        eos_token_id=3,
    )  # fmt: skip
    name = HEADS[head].architecture
    torch.manual_seed(0)
    theirs = getattr(transformers, name)(config).double().eval()
    ours = getattr(models, name)(config).double().eval()
    ours.load_state_dict(theirs.state_dict())
    found = []
    for model in (theirs, ours):
        tokenizer = RemBertTokenizer(TOKENIZER)
        # Generation continues texts on the right, so they are padded on the left.
        tokenizer.padding_side = "left" if task == "text-generation" else "right"
        pipeline = transformers.pipeline(task, model=model, tokenizer=tokenizer, device="cpu")
        batched = {} if task == "feature-extraction" else {"batch_size": len(texts)}
        found.append(pipeline(texts, **settings, **batched))
    assert _rounded(found[1]) == _rounded(found[0])


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return pytest.approx(float(value), abs=1e-6) if hasattr(value, "__float__") else value
