"""What only PyTorch has: the meta device, mapped parameters, autocast, state dicts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from rembert.common.config import RemBertConfig  # noqa: E402
from rembert.common.errors import InputError  # noqa: E402
from tests.frameworks import GOLDEN, PT, small_config  # noqa: E402
from tests.parity.cases import CASES, build  # noqa: E402


def test_meta_models_can_be_filled() -> None:
    case = CASES[0]
    config = case.config()
    with torch.device("meta"):
        model = PT.model_class("model")(config)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    whole = build(PT, case, config)
    model.load_state_dict(whole.state_dict(), assign=True)
    one, other = (PT.call(each.eval(), **case.inputs(config)) for each in (model, whole))
    assert torch.equal(one.last_hidden_state, other.last_hidden_state)


def test_a_meta_call_gives_shapes() -> None:
    with torch.device("meta"):
        model = PT.model_class("masked-lm")(CASES[0].config())
        logits = model(torch.zeros(2, 7, dtype=torch.long), attention_mask=torch.ones(2, 7)).logits
    assert logits.shape == (2, 7, 61)


def test_loaded_parameters_are_the_mapped_file() -> None:
    """Nothing is copied: the parameters lie behind one another as in the file."""
    model = PT.load(GOLDEN / "model", "model")
    starts = sorted((parameter.data_ptr(), parameter.nbytes) for parameter in model.parameters())
    assert all(a + size == b for (a, size), (b, _) in pairwise(starts))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_an_optimiser_changes_memory_and_not_the_file(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "one_label_each")
    config = case.config()
    build(PT, case, config, dtype="float32").save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = PT.load(tmp_path, case.head).train()
    first = PT.weights(model)["classifier.weight"].copy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**{name: PT.tensor(array) for name, array in case.inputs(config).items()}).loss.backward()
    optimizer.step()
    assert (PT.weights(model)["classifier.weight"] != first).any()
    assert (tmp_path / "model.safetensors").read_bytes() == before
    model.save_pretrained(tmp_path)
    assert (PT.weights(PT.load(tmp_path, case.head))["classifier.weight"] != first).any()


def test_a_given_state_is_saved(tmp_path: Path) -> None:
    case = CASES[0]
    model = build(PT, case, case.config(), dtype="float32")
    state = {name: tensor * 2 for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=state)
    doubled, plain = PT.weights(PT.load(tmp_path, "model")), PT.weights(model)
    assert all((doubled[name] == 2 * plain[name]).all() for name in plain)
    del state["pooler.dense.bias"]
    with pytest.raises(InputError, match=r"pooler\.dense\.bias"):
        model.save_pretrained(tmp_path, state_dict=state)


def test_parts() -> None:
    config = CASES[0].config()
    head = PT.build(config, "masked-lm")
    table = torch.nn.Embedding(config.vocab_size, 10)
    head.set_input_embeddings(table)
    assert head.get_input_embeddings() is table
    assert (head.dtype, head.device.type) == (torch.float32, "cpu")
    for parameter in head.rembert.parameters():
        parameter.requires_grad = False
    assert head.num_parameters(only_trainable=True) == sum(p.numel() for p in head.cls.parameters())


def test_a_quantized_model_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """torchao's weights are a subclass of Tensor, which this stand-in is too."""

    class Packed(torch.Tensor):
        pass

    model = build(PT, CASES[0], CASES[0].config())
    query = model.get_base_model().encoder.layer[0].attention.self.query
    query.weight = torch.nn.Parameter(query.weight.detach().as_subclass(Packed))
    with pytest.raises(InputError, match=r"Received: Packed of shape .* Save the model before it is quantized"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_class_that_pytorch_has_derived_is_not_named(tmp_path: Path) -> None:
    model = PT.build(small_config(), "token-classification")
    model.__class__ = type(f"FSDP{type(model).__name__}", (type(model),), {"__module__": "torch.distributed.fsdp"})
    model.save_pretrained(tmp_path)
    assert RemBertConfig.from_pretrained(tmp_path).architectures == ["RemBertForTokenClassification"]
    assert model._config_to_save().architectures == ["RemBertForTokenClassification"]  # what Trainer writes
