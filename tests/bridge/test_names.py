"""Every format's spelling of every parameter: the page of formats against the code, both ways."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rembert import RemBertConfig
from rembert.bridge.formats.tf1 import canonical_name
from rembert.bridge.names import from_h5_path, from_keras_path, h5_path, keras_path
from rembert.common.parameters import HEADS, parameters

PAGE = Path(__file__).parent.parent.parent / "docs" / "checkpoints.md"
CONFIG = RemBertConfig(num_hidden_layers=12, is_decoder=True, add_cross_attention=True)
# name -> what the page says of it: kind, H5, Keras 3, TF1
ROWS = {
    cells[0].strip("`"): [cell.strip("`") for cell in cells[1:]]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split(" | ")]) == 5
    and re.match(r"`[\w.]+\.(weight|bias)`$", cells[0])
}


def _row(name: str) -> list[str]:
    """What the page says of a parameter; the layer of a head that has no row keeps its name, as `classifier` does."""
    name = re.sub(r"\.layer\.\d+\.", ".layer.N.", name)
    root, leaf = name.split(".")[0], name.split(".")[-1]
    return ROWS.get(name) or [cell.replace("classifier/", f"{root}/") for cell in ROWS[f"classifier.{leaf}"]]


@pytest.mark.parametrize("head", HEADS)
def test_page_names_every_parameter(head: str) -> None:
    for parameter in parameters(CONFIG, head, pooler=True).values():
        number = re.search(r"\.layer\.(\d+)\.", parameter.name)
        row = [cell.replace("_N/", f"_{number[1]}/") if number else cell for cell in _row(parameter.name)]
        kind, h5, keras, tf1 = row
        assert kind == parameter.kind.value
        path, transposed = h5_path(parameter)
        assert path == h5
        assert transposed == (kind == "kernel" and parameter.name != "cls.predictions.decoder.weight")
        assert from_h5_path(f"rembert/tf_rem_bert_model_3/{path}") == (parameter.name, transposed)
        path, transposed = keras_path(parameter, head)
        keras = keras.replace("tf_rem_bert_layer_0/", "tf_rem_bert_layer/")
        assert path == (keras.removeprefix("layers/tf_rem_bert_model/") if head == "model" else keras)
        assert transposed == (kind == "kernel")
        assert from_keras_path(path, len(parameter.shape)) == (parameter.name, transposed)
        found = re.match(r"(bert/[^ `]+|dense/\w+)", tf1)
        if found:
            assert canonical_name(found[1]) == (parameter.name, kind == "kernel")


def test_page_names_nothing_else() -> None:
    known = {
        re.sub(r"\.layer\.\d+\.", ".layer.N.", name)
        for head in HEADS
        for name in parameters(CONFIG, head, pooler=True)
    }
    assert set(ROWS) <= known


@pytest.mark.parametrize("path", ["model/dense/kernel:0", "rembert", "rembert/x", "optimizer/iter:0", ""])
def test_other_h5_paths_are_not_parameters(path: str) -> None:
    assert from_h5_path(path) is None


@pytest.mark.parametrize(
    "name", ["cls/predictions/output_bias", "bert/other/kernel", "bert", "dense", "x/bert/pooler"]
)
def test_other_tf1_names_are_not_parameters(name: str) -> None:
    assert canonical_name(name) is None
