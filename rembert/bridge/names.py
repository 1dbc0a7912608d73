"""How other formats spell the parameter table's names.

Every mapping has two directions: from a parameter (its kind decides the last part of the name, and whether a matrix
is transposed), and back from a spelling alone, because a file is read before it is known which head it holds.
"""

from __future__ import annotations

import re

from rembert.common.parameters import Kind, Parameter

# ---------------------------------------------------------------------- TensorFlow, by path

# The last part of a TensorFlow name, by kind. Two matrices were declared as `weight` of [rows, width] in transformers'
# TensorFlow classes: the input table, and the output table, which is a kernel to PyTorch; neither is transposed.
_LEAVES = {
    Kind.EMBEDDING: "embeddings",
    Kind.KERNEL: "kernel",
    Kind.BIAS: "bias",
    Kind.SCALE: "gamma",
    Kind.SHIFT: "beta",
}
_NAMED_WEIGHT = ("rembert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight")
_CANONICAL_LEAVES = {
    "embeddings": "weight",
    "kernel": "weight",
    "weight": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
}
_ROOTS = {"rembert": "rembert", "mlm___cls": "cls", "classifier": "classifier", "qa_outputs": "qa_outputs"}
_ROOTS_BACK = {canonical: root for root, canonical in _ROOTS.items()}


def h5_path(parameter: Parameter) -> tuple[str, bool]:
    """Where transformers' TensorFlow classes keep a parameter, and whether it stands there transposed.

    `rembert.encoder.layer.0.output.dense.weight` is `rembert/encoder/layer_._0/output/dense/kernel:0`, transposed.
    """
    root, *parts = parameter.name.split(".")
    leaf = "weight" if parameter.name in _NAMED_WEIGHT else _LEAVES[parameter.kind]
    path = "/".join([_ROOTS_BACK[root], *parts[:-1], leaf])
    return re.sub(r"/layer/(\d+)/", r"/layer_._\1/", path) + ":0", leaf == "kernel"


def from_h5_path(path: str) -> tuple[str, bool] | None:
    """The canonical name of an H5 dataset, and whether it stands there transposed; None where it is no parameter.

    Groups to the left carry the layer's and the model instance's names, which vary from file to file
    (`tf_rem_bert_for_causal_lm_1/…`), so the name is what follows the last root that is known.
    """
    parts = path.removesuffix(":0").split("/")
    start = max((index for index, part in enumerate(parts[:-1]) if part in _ROOTS), default=None)
    if start is None or parts[-1] not in _CANONICAL_LEAVES:
        return None
    inner = re.sub(r"(^|/)layer_\._(\d+)/", r"\1layer/\2/", "/".join([*parts[start + 1 : -1], ""]))
    name = ".".join([_ROOTS[parts[start]], *inner.split("/")[:-1], _CANONICAL_LEAVES[parts[-1]]])
    return name, parts[-1] == "kernel"
