"""PEFT: LoRA on the attention projections, and the head that is trained beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file  # noqa: E402

from rembert.common.parameters import HEADS  # noqa: E402
from tests.frameworks import PT, small_config  # noqa: E402
from tests.parity.cases import CASES, Case, as_dtype, build, by_case  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

TASKS = {
    "model": "FEATURE_EXTRACTION",
    "masked-lm": None,
    "causal-lm": "CAUSAL_LM",
    "sequence-classification": "SEQ_CLS",
    "multiple-choice": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
}
ONE_OF_EACH = [
    case for case in CASES if case.name not in ("decoder", "several_labels", "one_number", "several_numbers")
]


def _inputs(case: Case, config: Any) -> dict[str, Any]:
    return {name: PT.tensor(array) for name, array in as_dtype(case.inputs(config), "float32").items()}


def _results(model: Any, inputs: dict[str, Any]) -> tuple[Any, ...]:
    model.eval()
    with torch.no_grad():
        outputs = model(**inputs)
    return tuple(value for name, value in outputs.items() if name != "past_key_values")


@by_case(ONE_OF_EACH)
def test_a_trained_step_saved_loaded_and_merged(case: Case, tmp_path: Path) -> None:
    config = case.config()
    inputs = _inputs(case, config)
    model = build(PT, case, config, dtype="float32")
    lora = peft.LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=model.head_modules)
    adapted = peft.get_peft_model(model, lora)
    before = _results(adapted, inputs)
    adapted.train()
    trainable = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.05)
    for _ in range(2):  # LoRA's second factor starts at zero: the first step trains it alone
        outputs = adapted(**inputs)
        loss = outputs.pooler_output.square().mean() if case.head == "model" else outputs.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = _results(adapted, inputs)
    assert all((one != other).any() for one, other in zip(before, after, strict=True))

    adapted.save_pretrained(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name in model.head_modules:
        assert any(f".{name}." in key for key in stored), name
    assert any(".query.lora_A" in key for key in stored)
    assert any(".value.lora_B" in key for key in stored)

    # Another process: the same encoder, and a head of other random numbers in place of the trained one.
    other = build(PT, case, config, dtype="float32")
    for name in other.head_modules:
        part = getattr(other, name, None) or getattr(other.base_model, name)
        torch.nn.init.normal_(next(part.parameters()))
    loaded = peft.PeftModel.from_pretrained(other, tmp_path / "adapter")
    torch.testing.assert_close(_results(loaded, inputs), after)

    merged = loaded.merge_and_unload()
    torch.testing.assert_close(_results(merged, inputs), after, rtol=1e-4, atol=1e-5)
    merged.save_pretrained(tmp_path / "merged")
    whole = PT.load(tmp_path / "merged", case.head)
    torch.testing.assert_close(_results(whole, inputs), _results(merged, inputs))


@pytest.mark.parametrize("method", ["optimize_for_inference", "quantize_dynamic"])
def test_prepared_for_inference(method: str) -> None:
    """What an adapter wraps stays as it is, until it is merged."""
    case = next(case for case in CASES if case.name == "one_label_each")
    inputs = _inputs(case, case.config())
    model = build(PT, case, case.config(), dtype="float32")
    lora = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, lora)
    wanted = _results(adapted, inputs)
    tolerance = 1e-5 if method == "optimize_for_inference" else 0.1
    getattr(adapted, method)(keep_parameters=True)
    torch.testing.assert_close(_results(adapted, inputs), wanted, rtol=tolerance, atol=tolerance)
    merged = getattr(adapted.merge_and_unload(), method)()
    torch.testing.assert_close(_results(merged, inputs), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("head", HEADS)
def test_the_parts_beyond_the_encoder(head: str) -> None:
    expected = {
        "model": ["pooler"],
        "masked-lm": ["cls"],
        "causal-lm": ["cls"],
        "sequence-classification": ["pooler", "classifier"],
        "multiple-choice": ["pooler", "classifier"],
        "token-classification": ["classifier"],
        "question-answering": ["qa_outputs"],
    }
    assert PT.build(small_config(is_decoder=head == "causal-lm"), head).head_modules == expected[head]


@by_case([case for case in ONE_OF_EACH if TASKS[case.head]])
def test_task_types(case: Case) -> None:
    config = case.config()
    inputs = _inputs(case, config)
    model = build(PT, case, config, dtype="float32")
    wanted = _results(model, inputs)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(task_type=TASKS[case.head], r=2, target_modules=["query", "value"])
    )
    if case.head == "question-answering":
        # PEFT's class for it takes token types and does not pass them on: why the documentation leaves task types out.
        del inputs["token_type_ids"]
        wanted = _results(adapted.get_base_model(), inputs)
    torch.testing.assert_close(_results(adapted, inputs), wanted)  # LoRA starts as nothing
    if case.name == "causal_lm":
        prompts = {"input_ids": inputs["input_ids"], "max_new_tokens": 3}
        assert torch.equal(adapted.generate(**prompts), adapted.get_base_model().generate(**prompts))
    kept = peft.get_peft_model_state_dict(adapted)
    for name in model.head_modules:
        # Why `head_modules` is there: a task type keeps a classifier, not the pooler before it nor a language head.
        assert any(f".{name}." in key for key in kept) == (name in ("classifier", "qa_outputs")), name
