"""PEFT: LoRA on the attention projections and the head that is trained beside it; other methods; an adapter's file."""

from __future__ import annotations

from collections.abc import Callable
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


# What each method needs to be small enough for the model, or at all. docs/pytorch.md has the table of these.
METHODS: dict[str, dict[str, Any]] = {
    "LoraConfig": {},
    "IA3Config": {},
    "LoHaConfig": {},
    "LoKrConfig": {},
    "LNTuningConfig": {},
    "AdaLoraConfig": {"total_step": 10},
    "AdamssConfig": {},
    "BOFTConfig": {"boft_block_size": 4},
    "BeftConfig": {},
    "C3AConfig": {"block_size": 4},
    "DeftConfig": {},
    "DeloraConfig": {},
    "FourierFTConfig": {"n_frequency": 10},
    "FrodConfig": {},
    "GloraConfig": {},
    "GraloraConfig": {},
    "HRAConfig": {},
    "HiraConfig": {},
    "MissConfig": {"r": 4},
    "OFTConfig": {"oft_block_size": 4},
    "OSFConfig": {},
    "PeanutConfig": {},
    "PsoftConfig": {"r": 4},
    "PveraConfig": {},
    "RandLoraConfig": {},
    "RoadConfig": {"group_size": 4},
    "ShiraConfig": {"r": 2},
    "SupertuningConfig": {},
    "TinyLoraConfig": {},
    "TrainableTokensConfig": {"token_indices": [1, 2, 3]},
    "UniLoraConfig": {},
    "VBLoRAConfig": {"vector_length": 4, "num_vectors": 8, "r": 2},
    "VeraConfig": {},
    "WaveFTConfig": {"n_frequency": 10},
}
QUICK = ("LoraConfig", "IA3Config", "LoHaConfig", "LoKrConfig", "LNTuningConfig")
CLASSIFIER = next(case for case in CASES if case.name == "one_label_each")
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 40}


def _classifier() -> tuple[Any, dict[str, Any]]:
    """A model of sizes that blocks of four divide, and its inputs."""
    config = CLASSIFIER.config(**SIZES)
    return build(PT, CLASSIFIER, config, dtype="float32"), _inputs(CLASSIFIER, config)


by_method = pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in METHODS]
)


@by_method
def test_methods_with_their_default_modules(method: str, tmp_path: Path) -> None:
    check_method(method, lambda: _classifier()[0], lambda path: PT.load(path, CLASSIFIER.head), tmp_path)


def check_method(method: str, make: Callable[[], Any], load: Callable[[Path], Any], tmp_path: Path) -> None:
    """Train, save and load an adapter; merge it, save the checkpoint and load that."""
    if not hasattr(peft, method):
        pytest.skip(f"PEFT {peft.__version__} has no {method}")
    inputs = _classifier()[1]
    torch.manual_seed(0)
    adapted = peft.get_peft_model(make(), getattr(peft, method)(**METHODS[method])).train()
    before = _results(adapted, inputs)[1]
    optimizer = torch.optim.SGD([each for each in adapted.train().parameters() if each.requires_grad], lr=0.05)
    for _ in range(3):  # the first may train a factor of a product that starts at zero
        optimizer.zero_grad()
        adapted(**inputs).loss.backward()
        optimizer.step()
    after = _results(adapted, inputs)[1]
    assert (after != before).any()
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(make(), tmp_path / "adapter")
    torch.testing.assert_close(_results(loaded, inputs)[1], after)
    merged = loaded.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    whole = load(tmp_path / "merged")
    torch.testing.assert_close(_results(whole, inputs)[1], after, rtol=1e-4, atol=1e-5)


def test_default_modules_are_those_of_bert() -> None:
    from peft.utils import constants

    tables = {name: each for name, each in vars(constants).items() if isinstance(each, dict) and "bert" in each}
    _ = _classifier()[0].config
    assert len(tables) > 5
    for name, table in tables.items():
        assert table.get("rembert") == table["bert"], name


def test_an_adapter_names_its_base_and_class(tmp_path: Path) -> None:
    _classifier()[0].save_pretrained(tmp_path / "base")
    base = PT.load(tmp_path / "base", CLASSIFIER.head)
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=2, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    stored = peft.PeftConfig.from_pretrained(tmp_path / "adapter")
    assert stored.base_model_name_or_path == str(tmp_path / "base")
    assert stored.auto_mapping["base_model_class"] == "RemBertForSequenceClassification"
    loaded = peft.AutoPeftModel.from_pretrained(tmp_path / "adapter", import_allowlist=["rembert.pt.heads"])
    inputs = _classifier()[1]
    torch.testing.assert_close(_results(loaded, inputs), _results(adapted, inputs))


@pytest.mark.parametrize("way", ["adapters", "tasks"])
def test_rows_of_a_batch_with_adapters_of_their_own(way: str) -> None:
    """PEFT's hooks choose by row, so padding is computed: the result is that of each row alone."""
    model, inputs = _classifier()
    if way == "adapters":
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, init_lora_weights=False))
        adapted.add_adapter("other", peft.LoraConfig(r=2, init_lora_weights=False))
        choices: dict[str, list[Any]] = {"adapter_names": ["default", "other", "__base__"]}
    else:
        lora = peft.PolyConfig(r=2, n_tasks=2, n_skills=2, task_type="SEQ_CLS", init_weights=False)
        adapted = peft.get_peft_model(model, lora)
        choices = {"task_ids": [0, 1, 0]}
    adapted.eval()

    def given(rows: slice) -> dict[str, Any]:
        own = {name: values[rows] for name, values in choices.items()}
        return {name: values if way == "adapters" else torch.tensor(values) for name, values in own.items()}

    together = adapted(**inputs, **given(slice(3))).logits
    for row in range(3):
        rows = slice(row, row + 1)
        alone = adapted(**{name: tensor[rows] for name, tensor in inputs.items()}, **given(rows)).logits
        torch.testing.assert_close(together[rows], alone)


@pytest.mark.parametrize("method", ["optimize_for_inference", "quantize_dynamic"])
def test_a_merged_model_is_prepared_for_inference(method: str) -> None:
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
