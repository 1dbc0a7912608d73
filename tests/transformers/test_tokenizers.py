"""The tokenizer inside transformers: its results are those of this library's own, in transformers' form."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

import rembert  # noqa: E402
import rembert.transformers  # noqa: E402
from rembert.common.errors import TokenizerError  # noqa: E402
from rembert.transformers import RemBertTokenizer  # noqa: E402

FILES = Path(__file__).parents[1] / "fixtures" / "tokenizer"
# Among them what the `tokenizers` library encodes in another way: docs/tokenizers.md lists the cases.
TEXTS = [
    "The train leaves at seven.",
    "x  🙂 ½ [MASK] a</s>b",
    "\u0998\u09c7\u09be\u09b7 \u0438\u0304\u0304",
    "Нет.",
    "",
]
EVERYTHING = {
    "return_offsets_mapping": True,
    "return_special_tokens_mask": True,
    "return_token_type_ids": True,
}


@pytest.fixture(scope="module")
def own() -> rembert.RemBertTokenizer:
    return rembert.RemBertTokenizer.from_pretrained(FILES)


@pytest.fixture(scope="module")
def directory(own: rembert.RemBertTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without weights, as this library saves one."""
    path = tmp_path_factory.mktemp("tokenizer")
    own.save_pretrained(path)
    transformers.RemBertConfig(vocab_size=len(own)).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def loaded(directory: Path) -> Any:
    """A tokenizer that no test may change."""
    return transformers.AutoTokenizer.from_pretrained(directory)


@pytest.fixture
def tokenizer(loaded: Any) -> Any:
    return copy.deepcopy(loaded)


def check(found: Any, wanted: Any) -> None:
    """The columns and the alignment of every row are the same."""
    for name in wanted:
        assert found[name] == wanted[name], name
    rows = len(wanted["input_ids"]) if isinstance(wanted["input_ids"][0], list) else 1
    for row in range(rows):
        assert found.word_ids(row) == wanted.word_ids(row)
        assert found.sequence_ids(row) == wanted.sequence_ids(row)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((TEXTS[1],), {}),
        ((TEXTS,), {"padding": True}),
        ((TEXTS,), {"padding": True, "padding_side": "left", "pad_to_multiple_of": 8}),
        ((TEXTS, TEXTS[::-1]), {"padding": "max_length", "truncation": True, "max_length": 12}),
        (
            (TEXTS[:3], TEXTS[2::-1]),
            {"truncation": "only_second", "max_length": 24, "stride": 2, "return_overflowing_tokens": True},
        ),
        (([["The", "train"], ["leaves", "at", "seven"]],), {"is_split_into_words": True, "padding": True}),
        ((TEXTS,), {"add_special_tokens": False}),
    ],
)
def test_results_are_those_of_the_library(
    loaded: Any, own: rembert.RemBertTokenizer, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    check(loaded(*arguments, **options, **EVERYTHING), own(*arguments, **options, **EVERYTHING))


def test_auto_tokenizer_reads_and_saves(tokenizer: Any, own: rembert.RemBertTokenizer, tmp_path: Path) -> None:
    assert type(tokenizer) is RemBertTokenizer
    assert isinstance(tokenizer, transformers.PreTrainedTokenizerBase)
    tokenizer.add_tokens(["<person>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<place>"]})
    text = f"{TEXTS[1]} <person> <place>."
    wanted = tokenizer(text)
    assert [each for each in wanted["input_ids"] if each >= len(own)] == [len(own), len(own) + 1]
    tokenizer.save_pretrained(tmp_path)
    transformers.RemBertConfig(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    for other in (
        transformers.AutoTokenizer.from_pretrained(tmp_path),
        rembert.RemBertTokenizer.from_pretrained(tmp_path),
        pickle.loads(pickle.dumps(tokenizer)),
        copy.deepcopy(tokenizer),
    ):
        assert other(text)["input_ids"] == wanted["input_ids"]
        assert other.mask_token_id == own.mask_token_id


def test_every_file_is_uploaded(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = mock.Mock()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    files = tokenizer.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="someone/files", private=True)
    assert hub.create_repo.call_args.args == ("someone/files",)
    assert hub.create_repo.call_args.kwargs["private"] is True
    uploaded = [each.path_in_repo for each in hub.create_commit.call_args.kwargs["operations"]]
    assert {"sentencepiece.model", "tokenizer.json", "tokenizer_config.json"} <= set(uploaded)
    assert sorted(map(os.path.basename, files)) == sorted(uploaded) == sorted(os.listdir(tmp_path / "saved"))


def test_words_and_characters_are_found(tokenizer: Any, own: rembert.RemBertTokenizer) -> None:
    found, wanted = tokenizer(TEXTS[:2], padding=True), own(TEXTS[:2], padding=True)
    assert "🙂" in wanted.tokens(1)  # unknown
    for result in (found, pickle.loads(pickle.dumps(found))):
        assert result.tokens(0) == wanted.tokens(0)
        assert result.tokens(1) == wanted.tokens(1)
        assert result.char_to_token(0, 5) == wanted.char_to_token(0, 5)
        assert result.token_to_chars(0, 2) == tuple(wanted.token_to_chars(0, 2) or ())
        assert result.word_to_tokens(1, 1) == tuple(wanted.word_to_tokens(1, 1) or ())
        assert result.char_to_word(0, 5) == 1


def test_a_replaced_part_of_the_backend_is_used(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    ids = tokenizer(TEXTS[0])["input_ids"]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    assert tokenizer(TEXTS[0])["input_ids"] == ids[1:-1]


def test_unregister_gives_the_tokenizer_back(directory: Path) -> None:
    rembert.transformers.unregister()
    try:
        assert type(transformers.AutoTokenizer.from_pretrained(directory)).__module__.startswith("transformers.")
    finally:
        rembert.transformers.register()


def test_other_sources_give_the_same_tokenizer(loaded: Any, own: rembert.RemBertTokenizer, directory: Path) -> None:
    path = directory / "tokenizer.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    unigram = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    steps = description["normalizer"]["normalizers"]
    charsmap = next(step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled")
    vocab = RemBertTokenizer(
        vocab=[tuple(entry) for entry in description["model"]["vocab"]],
        merges=None,
        added_tokens_decoder=unigram.added_tokens_decoder,
        _spm_precompiled_charsmap=base64.b64decode(charsmap),
    )
    for other in (RemBertTokenizer(tokenizer_object=unigram.backend_tokenizer), vocab):
        assert other(TEXTS)["input_ids"] == own(TEXTS)["input_ids"]
        assert other.all_special_tokens == loaded.all_special_tokens
        assert "vocab" not in other.init_kwargs
    with pytest.raises(TokenizerError, match="`vocab` must hold the unknown token"):
        RemBertTokenizer(vocab=[("a", -1.0)])
    with pytest.raises(TokenizerError, match="`tokenizer_object` must hold a Unigram model"):
        RemBertTokenizer(tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")))


def test_a_new_vocabulary_is_trained_by_sentencepiece(tokenizer: Any, own: rembert.RemBertTokenizer) -> None:
    texts = ["The train leaves at seven.", "The boat leaves at nine."] * 20
    renamed = {"[CLS]": "[cls]"}
    arguments: dict[str, Any] = {"vocab_size": 40, "new_special_tokens": ["<x>"], "special_tokens_map": renamed}
    tokenizer.model_max_length = 40
    found = tokenizer.train_new_from_iterator(texts, **arguments)
    wanted = own.train_new_from_iterator(texts, **arguments)
    assert type(found) is RemBertTokenizer
    assert found.get_vocab() == wanted.get_vocab()
    assert (found.cls_token, found.model_max_length) == ("[cls]", 40)
    assert found("The <x> boat ")["input_ids"] == wanted("The <x> boat ")["input_ids"]


def test_large_vocabularies_are_not_taken_for_those_of_mistral(tokenizer: Any) -> None:
    """transformers looks at vocabularies of more than 100,000 tokens, and asks the Hub whose they are."""
    backend = tokenizer.backend_tokenizer
    assert RemBertTokenizer._patch_mistral_regex(backend, "google/rembert") is backend
