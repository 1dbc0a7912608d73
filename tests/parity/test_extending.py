"""Modules that a subclass adds: saved by one framework, loaded by a subclass of the other with the same attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

from rembert import RemBertConfig  # noqa: E402
from rembert.common.errors import CheckpointError, KeywordError  # noqa: E402
from rembert.pt import RemBertForTokenClassification  # noqa: E402
from rembert.tf import TFRemBertForTokenClassification, TFRemBertModel, TFRemBertPreTrainedModel  # noqa: E402
from tests.frameworks import PT, TF, Framework, on_both, small_config  # noqa: E402

IDS = np.array([[5, 6, 7], [8, 9, 0]])


class Torch(RemBertForTokenClassification):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.extra = torch.nn.Linear(config.num_labels, 4)
        self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(4)])
        self.register_buffer("shift", torch.ones(4), persistent=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().forward(*args, **kwargs)
        outputs["logits"] = self.norms[0](self.extra(outputs.logits)) + self.shift
        return outputs


class Keras(TFRemBertForTokenClassification):
    def __init__(self, config: Any, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.extra = keras.layers.Dense(4)
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-5)]

    def call(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().call(*args, **kwargs)
        outputs["logits"] = self.norms[0](self.extra(outputs.logits)) + 1
        return outputs


def test_what_one_framework_adds_the_other_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Torch(small_config(num_hidden_layers=1)).eval()
    with torch.no_grad():
        for parameter in model.norms.parameters():
            parameter.normal_()
    expected = PT.call(model, input_ids=IDS).logits.numpy()
    model.save_pretrained(tmp_path / "pt")
    twin = Keras.from_pretrained(tmp_path / "pt")
    np.testing.assert_allclose(TF.call(twin, input_ids=IDS).logits, expected, rtol=1e-5, atol=1e-5)
    twin.save_pretrained(tmp_path / "tf")
    for directory in ("pt", "tf"):
        again = Torch.from_pretrained(tmp_path / directory)
        np.testing.assert_array_equal(PT.call(again, input_ids=IDS).logits.numpy(), expected)
    with pytest.raises(CheckpointError, match=r"Unexpected \(4\)"):
        RemBertForTokenClassification.from_pretrained(tmp_path / "tf")


@pytest.mark.parametrize("model_class", [Torch, Keras])
def test_a_checkpoint_without_them_gives_initial_values(model_class: type, tmp_path: Path) -> None:
    RemBertForTokenClassification(small_config(num_hidden_layers=1)).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="newly initiali[sz]ed: extra"):
        model = model_class.from_pretrained(tmp_path)
    framework = PT if model_class is Torch else TF
    assert np.isfinite(framework.array(framework.call(model, input_ids=IDS).logits)).all()


def test_another_classifier_or_table_in_pytorch(tmp_path: Path) -> None:
    model = RemBertForTokenClassification(small_config(num_hidden_layers=1)).eval()
    model.classifier = torch.nn.Linear(model.config.hidden_size, 7)
    rows = model.config.vocab_size + 5
    model.set_input_embeddings(torch.nn.Embedding(rows, model.config.input_embedding_size))
    ids = np.full((1, 2), rows - 1)
    outputs = PT.call(model, input_ids=ids, labels=np.array([[6, 0]]))
    assert torch.isfinite(outputs.loss)
    model.save_pretrained(tmp_path)
    again = RemBertForTokenClassification.from_pretrained(tmp_path)
    np.testing.assert_array_equal(PT.call(again, input_ids=ids).logits, outputs.logits)


class _Scaled(torch.nn.Module):
    """The old names of a layer normalization's parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = (torch.nn.Parameter(torch.randn(4)) for _ in range(2))


@pytest.mark.parametrize(
    ("attribute", "make"),
    [
        ("pooler", lambda: torch.nn.Linear(4, 4)),  # the checkpoint's pooler is `rembert.pooler`
        ("module", lambda: torch.nn.Linear(4, 4)),  # the prefix of a data-parallel wrapper
        ("scale", _Scaled),
        ("norm", lambda: torch.nn.BatchNorm1d(4)),  # which counts batches in int64
    ],
)
def test_added_modules_of_any_name_and_dtype_in_pytorch(tmp_path: Path, attribute: str, make: Any) -> None:
    class Added(RemBertForTokenClassification):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            setattr(self, attribute, make())

    model = Added(small_config(num_hidden_layers=1))
    if attribute == "norm":
        model.norm.num_batches_tracked.fill_(7)
    model.save_pretrained(tmp_path)
    loaded, half = Added.from_pretrained(tmp_path), Added.from_pretrained(tmp_path, dtype="bfloat16")
    expected = model.state_dict()
    assert list(loaded.state_dict()) == list(expected)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
        assert half.state_dict()[name].dtype == (torch.bfloat16 if tensor.is_floating_point() else tensor.dtype)


def test_added_variables_of_the_model_itself_in_keras(tmp_path: Path) -> None:
    """As an `nn.Parameter` of a PyTorch model; names follow the attributes, as in PyTorch."""

    class Tempered(TFRemBertForTokenClassification):
        def __init__(self, config: Any, **kwargs: Any) -> None:
            super().__init__(config, **kwargs)
            self.temperature = self.add_weight(shape=(), name="t", initializer="ones")
            self.shift = keras.Variable(3.0)

    model = Tempered(small_config(num_hidden_layers=1))
    model.temperature.assign(9)
    model.shift.assign(-1)
    model.save_pretrained(tmp_path)
    loaded = Tempered.from_pretrained(tmp_path)
    assert (float(loaded.temperature), float(loaded.shift)) == (9, -1)
    assert {"temperature", "shift"} < set(load_file(tmp_path / "model.safetensors"))


def test_added_integers_in_keras(tmp_path: Path) -> None:
    class Counted(TFRemBertForTokenClassification):
        def __init__(self, config: Any, **kwargs: Any) -> None:
            super().__init__(config, **kwargs)
            self.counter = keras.layers.Normalization()
            self.counter.build((None, 4))

    model = Counted(small_config(num_hidden_layers=1))
    model.counter.count.assign(7)
    model.save_pretrained(tmp_path)
    assert int(Counted.from_pretrained(tmp_path).counter.count) == 7


def test_a_keras_class_with_a_base_model_under_another_name(tmp_path: Path) -> None:
    """As a class on PyTorch's `RemBertPreTrainedModel`; saving it creates weights that wait for a first call."""

    class Custom(TFRemBertPreTrainedModel):
        def __init__(self, config: Any, **kwargs: Any) -> None:
            super().__init__(config, **kwargs)
            self.backbone = TFRemBertModel(config)
            self.out = keras.layers.Dense(3)

        def call(self, input_ids: Any = None, **kwargs: Any) -> Any:
            return self.out(self.backbone(input_ids, **kwargs).last_hidden_state)

    model = Custom(small_config(num_hidden_layers=1))
    model.save_pretrained(tmp_path)
    expected = np.array(model(IDS))
    np.testing.assert_array_equal(Custom.from_pretrained(tmp_path)(IDS), expected)


def test_a_keras_class_whose_own_layers_are_built_takes_the_weights_of_a_base_model(tmp_path: Path) -> None:
    class Custom(TFRemBertPreTrainedModel):
        def __init__(self, config: Any, **kwargs: Any) -> None:
            super().__init__(config, **kwargs)
            self.rembert = TFRemBertModel(config)
            self.out = keras.layers.Dense(3)
            self.out.build((None, None, config.hidden_size))

        def call(self, input_ids: Any = None, **kwargs: Any) -> Any:
            return self.out(self.rembert(input_ids, **kwargs).last_hidden_state)

    base = TFRemBertModel(small_config(num_hidden_layers=1))
    base.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="newly initialised: out"):
        model = Custom.from_pretrained(tmp_path)
    np.testing.assert_array_equal(model.rembert(IDS).last_hidden_state, base(IDS).last_hidden_state)


class Deep(RemBertConfig):
    def __init__(self, depth: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.depth = depth


@on_both
def test_a_class_may_have_a_configuration_of_its_own(framework: Framework, tmp_path: Path) -> None:
    base: Any = framework.model_class("token-classification")
    own: Any = type(base.__name__, (base,), {"config_class": Deep})
    base(small_config()).save_pretrained(tmp_path)
    assert own.from_pretrained(tmp_path).config.depth == 3
    own.from_pretrained(tmp_path, depth=5).save_pretrained(tmp_path / "own")
    assert own.from_pretrained(tmp_path / "own").config.depth == 5
    assert own.from_config(small_config(), depth=4).config.depth == 4
    with pytest.raises(KeywordError, match="Did you mean `depth`"):
        own.from_pretrained(tmp_path, dephts=5)
    if framework is TF:
        config = own.from_config(own.from_pretrained(tmp_path / "own").get_config()).config
        assert (type(config), config.depth) == (Deep, 5)
