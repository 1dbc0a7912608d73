"""The module for Sentence-Transformers inside a real model of theirs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sentence_transformers = pytest.importorskip("sentence_transformers")

from sentence_transformers import SentenceTransformer  # noqa: E402
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss  # noqa: E402
from sentence_transformers.sentence_transformer.modules import Pooling  # noqa: E402

from rembert.common.errors import InputError, MissingDependencyError  # noqa: E402
from rembert.pt import RemBertModel, RemBertTokenizer  # noqa: E402
from rembert.pt.sentence_transformers import RemBertTransformer  # noqa: E402
from tests.frameworks import PT, difference, small_config  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENIZER = Path(__file__).parents[2] / "fixtures" / "tokenizer"
TEXTS = ["The train leaves at seven.", "Der Zug fährt um sieben, wenn er nicht später fährt.", "No."]


@pytest.fixture
def encoder() -> RemBertTransformer:
    torch.manual_seed(0)
    tokenizer = RemBertTokenizer.from_pretrained(TOKENIZER)
    config = small_config(vocab_size=len(tokenizer), max_position_embeddings=40, initializer_range=0.3)
    return RemBertTransformer(PT.build(config, "model", add_pooling_layer=False), tokenizer)


def _whole(encoder: RemBertTransformer, **pooling: Any) -> SentenceTransformer:
    pool = Pooling(encoder.get_embedding_dimension(), **{"pooling_mode": "mean", **pooling})
    return SentenceTransformer(modules=[encoder, pool], device="cpu")


def test_embeddings_are_the_means_of_the_real_tokens_states(encoder: RemBertTransformer) -> None:
    model = _whole(encoder)
    assert model.get_embedding_dimension() == 12
    found = model.encode(TEXTS, batch_size=3)
    for text, embedding in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            states = encoder.model(**encoder.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert difference(embedding, states.mean(0).numpy()) <= 1e-5
    alone = np.stack([model.encode(text) for text in TEXTS])
    assert difference(alone, found) <= 1e-5  # whatever stands beside it in the batch


def test_saved_and_loaded(encoder: RemBertTransformer, tmp_path: Path) -> None:
    encoder.max_seq_length = 7
    model = _whole(encoder)
    wanted = model.encode(TEXTS)
    model.save(str(tmp_path))
    # Sentence-Transformers asks for this before it imports any module that is not its own.
    loaded = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu", local_files_only=True)
    assert type(loaded[0]) is RemBertTransformer
    assert loaded.max_seq_length == 7
    np.testing.assert_array_equal(loaded.encode(TEXTS), wanted)
    half = SentenceTransformer(
        str(tmp_path), trust_remote_code=True, device="cpu", local_files_only=True, model_kwargs={"dtype": "bfloat16"}
    )
    assert half.dtype == torch.bfloat16
    # The directory is a checkpoint as any other.
    RemBertModel.from_pretrained(tmp_path, add_pooling_layer=False)
    RemBertTokenizer.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="safetensors"):
        model.save(str(tmp_path), safe_serialization=False)


def test_prompts_and_pairs(encoder: RemBertTransformer) -> None:
    model = _whole(encoder, include_prompt=False)
    features = model.preprocess(["No."], prompt="query: ")
    prompted = encoder.tokenizer("query: No.")["input_ids"]
    assert features["input_ids"].tolist() == [prompted]
    with torch.no_grad():
        states = encoder.model(torch.tensor([prompted])).last_hidden_state[0]
    length = features["prompt_length"]
    assert prompted[:length] == encoder.tokenizer("query: ")["input_ids"][:-1]
    assert difference(model.encode("No.", prompt="query: "), states[length:].mean(0).numpy()) <= 1e-5
    pairs = encoder.preprocess([("No.", "Yes."), ("A", "B")])
    assert pairs["token_type_ids"].max() == 1


def test_a_training_step(encoder: RemBertTransformer) -> None:
    model = _whole(encoder).train()
    # As Trainer of transformers 5.23 calls it, which Sentence-Transformers' trainer is.
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=None, every_n_layers=1, offload=False)
    assert encoder.model.is_gradient_checkpointing
    loss = MultipleNegativesRankingLoss(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    pairs = [model.preprocess(TEXTS), model.preprocess(["At seven a train leaves.", "Um sieben fährt er.", "Nein."])]
    losses = []
    for _ in range(4):
        value = loss([dict(part) for part in pairs], labels=None)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < losses[0]


def test_contradicting_arguments_are_refused(encoder: RemBertTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="`vocab_size=61`"):
        RemBertTransformer(PT.build(small_config(), "model"), encoder.tokenizer)
    with pytest.raises(InputError, match="`max_seq_length=41`"):
        RemBertTransformer(encoder.model, encoder.tokenizer, max_seq_length=41)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.delitem(sys.modules, "rembert.pt.sentence_transformers")
    with pytest.raises(MissingDependencyError, match=r"rembert\[sentence-transformers\]"):
        import rembert.pt.sentence_transformers  # noqa: F401
