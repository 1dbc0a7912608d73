"""A SavedModel that takes text, in a process that knows TensorFlow and TensorFlow Text alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_text")

from rembert.common.errors import InputError  # noqa: E402
from rembert.common.tokenization import RemBertTokenizer  # noqa: E402
from rembert.tf.text_serving import TextPreprocessor, export_text_savedmodel  # noqa: E402
from tests.frameworks import TF, random_weights, small_config  # noqa: E402

MODEL = Path(__file__).parents[1] / "fixtures" / "tokenizer" / "sentencepiece.model"
HEAD = "sequence-classification"
TEXTS = ["Où est la gare ?", "駅はどこですか。", "", "one two three four five six seven eight nine ten eleven twelve"]

STRANGER = """
import json, sys
sys.modules["rembert"] = None
import tensorflow as tf
import tensorflow_text
served = tf.saved_model.load(sys.argv[1]).signatures
texts = tf.constant(json.loads(sys.argv[2]))
found = [served["serving_default"](text=texts), served["pairs"](text=texts, text_pair=texts[::-1])]
print(json.dumps([each["logits"].numpy().tolist() for each in found]))
"""


@pytest.mark.slow
def test_text_in_logits_out(tmp_path: Path) -> None:
    tokenizer = RemBertTokenizer(MODEL)
    config = small_config(num_hidden_layers=1, vocab_size=len(tokenizer), max_position_embeddings=16)
    model = TF.build(config, HEAD)
    TF.set_weights(model, random_weights(config, HEAD, 0, "float32"))
    assert export_text_savedmodel(model, tokenizer, tmp_path / "out") <= 1e-5
    command = [sys.executable, "-c", STRANGER, str(tmp_path / "out"), json.dumps(TEXTS)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    single, pairs = (np.array(each) for each in json.loads(done.stdout.strip().splitlines()[-1]))
    settings = {"padding": True, "truncation": True, "max_length": 16, "return_tensors": "np"}
    for found, second in ((single, None), (pairs, TEXTS[::-1])):
        expected = np.asarray(model(dict(tokenizer(TEXTS, second, **settings))).logits)
        assert np.ptp(expected) > 1e-3
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_pipeline_of_texts_has_the_tokenizers_ids() -> None:
    tokenizer = RemBertTokenizer(MODEL)
    preprocess = TextPreprocessor(tokenizer, max_length=9)
    settings = {"padding": True, "truncation": True, "max_length": 9, "return_tensors": "np"}
    data = tf.data.Dataset.from_tensor_slices((TEXTS, TEXTS[::-1])).batch(len(TEXTS))
    for found, second in ((data.map(lambda one, other: preprocess(one)), None), (data.map(preprocess), TEXTS[::-1])):
        (inputs,) = found
        for name, expected in tokenizer(TEXTS, second, **settings).items():
            np.testing.assert_array_equal(inputs[name], expected, err_msg=name)
    with pytest.raises(InputError, match="do_lower_case=True"):
        TextPreprocessor(RemBertTokenizer(MODEL, do_lower_case=True), 9)


def test_unsupported_models_are_refused(tmp_path: Path) -> None:
    tokenizer = RemBertTokenizer(MODEL)
    config = small_config(num_hidden_layers=1, vocab_size=len(tokenizer))
    with pytest.raises(InputError, match="multiple-choice"):
        export_text_savedmodel(TF.build(config, "multiple-choice"), tokenizer, tmp_path / "out")
    model = TF.build(config, HEAD)
    with pytest.raises(InputError, match="do_lower_case=True"):
        export_text_savedmodel(model, RemBertTokenizer(MODEL, do_lower_case=True), tmp_path / "out")
    with pytest.raises(InputError, match=r"`max_length` must be an integer from 4 to 18\. Received: `max_length=19`"):
        export_text_savedmodel(model, tokenizer, tmp_path / "out", max_length=19)
    assert list(tmp_path.iterdir()) == []
