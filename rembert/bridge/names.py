"""The names of parameters in other formats.

Every mapping has two directions: from a parameter, whose kind decides the last part of the name and whether a matrix
is transposed, and back from the name alone, because a file is read before its head is determined.
"""

from __future__ import annotations

import re

from rembert.common.parameters import BASE_PREFIX, Kind, Parameter, file_name, root_names

# ---------------------------------------------------------------------- TensorFlow, by path

# The attribute of a Keras layer that holds a parameter, by kind; it is also the last part of a TensorFlow name.
KERAS_ATTRIBUTES = {
    Kind.EMBEDDING: "embeddings",
    Kind.KERNEL: "kernel",
    Kind.BIAS: "bias",
    Kind.SCALE: "gamma",
    Kind.SHIFT: "beta",
}
# The TensorFlow classes of transformers have two matrices named `weight` and not transposed: the input embeddings and
# the output embeddings, which are a kernel in PyTorch.
_NAMED_WEIGHT = ("rembert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight")
_CANONICAL_ENDINGS = {
    "embeddings": "weight",
    "kernel": "weight",
    "weight": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
}
# The first part of a TensorFlow name if it differs from the canonical one.
_H5_ROOTS = {"cls": "mlm___cls"}


def h5_path(parameter: Parameter) -> tuple[str, bool]:
    """The name of a parameter in transformers' TensorFlow classes, and whether it is transposed there.

    `rembert.encoder.layer.0.output.dense.weight` is `rembert/encoder/layer_._0/output/dense/kernel:0`, transposed.
    """
    root, *parts = parameter.name.split(".")
    leaf = "weight" if parameter.name in _NAMED_WEIGHT else KERAS_ATTRIBUTES[parameter.kind]
    path = "/".join([_H5_ROOTS.get(root, root), *parts[:-1], leaf])
    return re.sub(r"/layer/(\d+)/", r"/layer_._\1/", path) + ":0", leaf == "kernel"


def from_h5_path(path: str) -> tuple[str, bool] | None:
    """The canonical name of an H5 dataset, and whether it is transposed there; None if it is not a parameter.

    The first groups name the layer and the instance of the model, which vary from file to file
    (`tf_rem_bert_for_causal_lm_1/…`), so the name begins at the last known root.
    """
    parts = path.removesuffix(":0").split("/")
    roots = {_H5_ROOTS.get(root, root): root for root in root_names()}
    start = max((index for index, part in enumerate(parts[:-1]) if part in roots), default=None)
    if start is None or parts[-1] not in _CANONICAL_ENDINGS:
        return None
    inner = re.sub(r"(^|/)layer_\._(\d+)/", r"\1layer/\2/", "/".join([*parts[start + 1 : -1], ""]))
    name = ".".join([roots[parts[start]], *inner.split("/")[:-1], _CANONICAL_ENDINGS[parts[-1]]])
    return name, parts[-1] == "kernel"


# ---------------------------------------------------------------------- Keras 3, by attribute

# Keras names a variable by the attributes that lead to it and its number within its layer. It visits attributes in
# alphabetical order, among them the list `layers`: layers that come later in the alphabet are named by their class in
# that list. Keras layers have an attribute `output` of another meaning, so it is `out` here.
_KERAS_NUMBERS = {Kind.EMBEDDING: 0, Kind.KERNEL: 0, Kind.BIAS: 1, Kind.SCALE: 0, Kind.SHIFT: 1}
_KERAS_PARTS = (
    ("rembert", "layers/tf_rem_bert_model"),
    ("pooler", "layers/tf_rem_bert_pooler"),
    ("qa_outputs", "layers/dense"),
    ("output", "out"),
)
_KERAS_LAYER = "tf_rem_bert_layer"


def keras_path(parameter: Parameter, head: str) -> tuple[str, bool]:
    """The path of a parameter in a Keras file of `rembert.tf`, and whether it is transposed there.

    `rembert.encoder.layer.2.output.dense.weight` is
    `layers/tf_rem_bert_model/encoder/layer/tf_rem_bert_layer_2/out/dense/vars/0`, transposed.
    """
    parts = file_name(parameter.name, head).split(".")[:-1]
    path = "/".join(dict(_KERAS_PARTS).get(part, part) for part in parts)
    path = re.sub(r"/layer/(\d+)/", lambda m: f"/layer/{_KERAS_LAYER}{'_' + m[1] if int(m[1]) else ''}/", path)
    return f"{path}/vars/{_KERAS_NUMBERS[parameter.kind]}", parameter.kind is Kind.KERNEL


def from_keras_path(path: str, dimensions: int) -> tuple[str, bool] | None:
    """The canonical name of a Keras variable, and whether it is transposed there; None if it is not a parameter.

    Args:
        path: in the file.
        dimensions: of the variable: 1 or 2.
    """
    found = re.fullmatch(r"(.+)/vars/([01])", path)
    if not found:
        return None
    layers = f"{found[1]}/"
    for canonical, keras in _KERAS_PARTS:
        layers = re.sub(rf"(^|/){keras}/", rf"\1{canonical}/", layers)
    layers = re.sub(rf"/layer/{_KERAS_LAYER}(?:_(\d+))?/", lambda m: f"/layer/{m[1] or 0}/", layers)
    name = layers.replace("/", ".") + ("bias" if found[2] == "1" else "weight")
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"{BASE_PREFIX}{name}"
    is_table = name.startswith(f"{BASE_PREFIX}embeddings.")
    return name, dimensions == 2 and not is_table
