"""What programs written for transformers expect of a tokenizer and of its results."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

import rembert
from rembert import AddedToken, BatchEncoding, RemBertTokenizer, RemBertTokenizerFast
from rembert.common.errors import InputError
from tests.common.tokenizer_cases import MODEL, TRICKY, train

# Texts with added tokens, and what transformers 4.57.6 (fast class) and 5.23.0 decode their own ids of them to, with
# `skip_special_tokens=True`. The slow class of 4.57.6 agrees, except that it has a space before `<l>`.
DECODED = {
    "Arthur met Deniz today.": "Arthur met Deniz today.",
    "a Deniz Deniz b": "a Deniz Deniz b",
    "Deniz Deniz": "Deniz Deniz",
    " Deniz": "Deniz",
    "x <l> y": "x<l> y",
    "x <r> y": "x <r> y",
    "hello [MASK] . x": "hello . x",
}


LINE = AddedToken("\n", normalized=False)


def with_added(tokenizer: RemBertTokenizer) -> RemBertTokenizer:
    tokenizer.add_tokens(["Deniz", AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True), LINE, "a.*b|c"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<s1>"]})
    return tokenizer


def test_decoding_keeps_the_space_before_an_added_token(fresh: RemBertTokenizer) -> None:
    with_added(fresh)
    for text, expected in DECODED.items():
        ids = fresh.encode(text)
        assert fresh.decode(ids, skip_special_tokens=True) == expected
        assert fresh.convert_tokens_to_string(fresh.tokenize(text)) == expected.replace("hello .", "hello[MASK] .")
    assert fresh.decode(fresh.encode("x <s1> y")) == "[CLS] x <s1> y[SEP]"
    assert fresh.decode(fresh.encode("x\ny")) == "[CLS] x\n y[SEP]"
    assert fresh.decode(fresh.encode("met Deniz"), spaces_between_special_tokens=False) == "[CLS] metDeniz[SEP]"
    met, space, deniz = fresh.convert_tokens_to_ids(["▁met", "▁", "Deniz"])
    assert fresh.decode([met, space, deniz]) == "met Deniz"  # ids of transformers' fast class


def test_saved_directories_decode_alike(fresh: RemBertTokenizer, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    with_added(fresh).save_pretrained(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in [*DECODED, "x <s1> y", "x\ny Deniz", "q a.*b|c w", *TRICKY[:3]]:
        ids = fresh.encode(text)
        for skip in (True, False):
            assert backend.decode(ids, skip_special_tokens=skip) == fresh.decode(ids, skip_special_tokens=skip)


def test_saved_directories_decode_alike_in_transformers(fresh: RemBertTokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    with_added(fresh).save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text, expected in DECODED.items():
        assert theirs(text)["input_ids"] == fresh.encode(text)
        assert theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True) == expected


def test_using_a_tokenizer_does_not_change_its_hash(tokenizer_class: type[RemBertTokenizer]) -> None:
    tokenizer = tokenizer_class(MODEL, model_max_length=4)
    dumps = [pickle.dumps]
    if dill := _dill():
        dumps.append(dill)
    before = [dump(tokenizer) for dump in dumps]
    with pytest.warns(UserWarning, match="model_max_length"):
        encoding = tokenizer(["a b ½ [MASK]", "a b c d e f"])
    tokenizer.decode(encoding.word_ids() and encoding["input_ids"][0])
    assert [dump(tokenizer) for dump in dumps] == before
    tokenizer.add_tokens(["<new>"])
    assert pickle.dumps(tokenizer) != before[0]


def _dill() -> Any:
    """The pickler whose bytes `datasets` hashes."""
    try:
        import dill
    except ImportError:
        return None

    def dump(value: Any) -> bytes:
        target = io.BytesIO()
        dill.Pickler(target, recurse=True).dump(value)
        return target.getvalue()

    return dump


def test_the_fingerprint_of_datasets_is_stable() -> None:
    fingerprint = pytest.importorskip("datasets.fingerprint")
    tokenizer = RemBertTokenizer(MODEL)
    before = fingerprint.Hasher.hash(tokenizer)
    tokenizer("a [MASK] b").word_ids()
    assert fingerprint.Hasher.hash(tokenizer) == before == fingerprint.Hasher.hash(RemBertTokenizer(MODEL))


ROWS: list[tuple[Any, Any]] = [
    (["a b ½ ﬁne", "[MASK] 𐍈 x"], None),  # 𐍈 is unknown to the model
    (["a b", "c d e f"], ["g", ""]),
]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("text", "pair"), ROWS)
def test_rows_are_those_of_the_tokenizers_library(text: Any, pair: Any, side: str) -> None:
    tokenizer = RemBertTokenizerFast(MODEL, padding_side=side)
    backend = tokenizer.backend_tokenizer
    backend.enable_padding(pad_id=0, pad_token="<pad>", direction=side)
    theirs = backend.encode_batch(text if pair is None else list(zip(text, pair, strict=True)))
    encoding = tokenizer(text, pair, padding=True)
    offsets = tokenizer(text, pair, padding=True, return_offsets_mapping=True)["offset_mapping"]
    for ours in (encoding, pickle.loads(pickle.dumps(encoding)), copy.deepcopy(encoding)):
        assert ours.encodings is not None
        for index, (row, their) in enumerate(zip(ours.encodings, theirs, strict=True)):
            assert len(row) == len(their.ids)
            for name in ("ids", "tokens", "type_ids", "attention_mask", "special_tokens_mask", "sequence_ids",
                         "n_sequences", "overflowing"):  # fmt: skip
                assert getattr(row, name) == getattr(their, name), name
            assert ours[index] is row
            assert ours.tokens(index) == their.tokens
            assert ours.words(index) == ours.word_ids(index) == row.words == row.word_ids
            assert row.offsets == offsets[index]
        assert ours.n_sequences == theirs[0].n_sequences
        assert ours.is_fast


def test_results_without_a_text(tokenizer: RemBertTokenizer) -> None:
    result = tokenizer.pad(tokenizer("a"))
    assert (result.encodings, result.n_sequences, result.is_fast) == (None, None, False)
    with pytest.raises(InputError, match="does not come from a text"):
        result.tokens()


def test_windows_have_rows(tokenizer: RemBertTokenizer) -> None:
    text = "one two three four five six"
    encoding = tokenizer(text, truncation=True, max_length=6, return_overflowing_tokens=True)
    assert [row.ids for row in encoding.encodings or ()] == encoding["input_ids"]
    assert [token for row in encoding.encodings or () for token in row.tokens[1:-1]] == tokenizer.tokenize(text)


def test_slices_and_names(tokenizer: RemBertTokenizer) -> None:
    encoding = tokenizer(["a", "b", "c"])
    assert encoding[1:] == {name: value[1:] for name, value in encoding.items()}
    assert encoding[-1].ids == encoding["input_ids"][2]
    with pytest.raises(InputError, match="no row 3"):
        encoding[3]


def test_convert_to_tensors(tokenizer: RemBertTokenizer) -> None:
    encoding = tokenizer("a b")
    assert encoding.convert_to_tensors(None) is encoding
    assert encoding.convert_to_tensors("np", prepend_batch_axis=True) is encoding
    assert encoding["input_ids"].tolist() == [tokenizer.encode("a b")]
    kept = encoding["input_ids"]
    assert encoding.convert_to_tensors("np")["input_ids"] is kept
    assert BatchEncoding({"input_ids": [1]}, tensor_type="np")["input_ids"].shape == (1,)
    with pytest.raises(InputError, match="must have one length"):
        tokenizer(["a", "a b"]).convert_to_tensors("np")
    torch = pytest.importorskip("torch")
    assert torch.equal(encoding.convert_to_tensors("pt")["input_ids"], torch.tensor(kept))


def test_prepare_for_model_makes_what_a_call_makes(tokenizer: RemBertTokenizer) -> None:
    a, b = "one two three four", "five six"
    first, second = (tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) for text in (a, b))
    for options in (
        {},
        {"add_special_tokens": False},
        {"truncation": "only_first", "max_length": 8, "return_special_tokens_mask": True},
        {"padding": "max_length", "max_length": 30, "padding_side": "left", "return_length": True},
        {"truncation": True, "max_length": 8, "return_overflowing_tokens": True, "stride": 1},
    ):
        assert tokenizer.prepare_for_model(first, second, **options) == tokenizer(a, b, **options)
    assert tokenizer.prepare_for_model(np.array(first))["input_ids"] == tokenizer.encode(a)
    assert tokenizer.prepare_for_model(first, return_tensors="np")["input_ids"].ndim == 1
    assert tokenizer.prepare_for_model(first, return_tensors="np", prepend_batch_axis=True)["input_ids"].ndim == 2
    with pytest.raises(InputError, match="needs a text"):
        tokenizer.prepare_for_model(first, return_offsets_mapping=True)
    with pytest.raises(InputError, match="must be a list of integers"):
        tokenizer.prepare_for_model(["▁a"])
    with pytest.raises(TypeError, match="max_len"):
        tokenizer.prepare_for_model(first, max_len=3)


def test_text_target(tokenizer: RemBertTokenizer) -> None:
    both = tokenizer(["a b", "c"], text_target=["d", "e f"], padding=True, return_tensors="np")
    assert both["labels"].tolist() == tokenizer(["d", "e f"], padding=True)["input_ids"]
    assert both["input_ids"].tolist() == tokenizer(["a b", "c"], padding=True)["input_ids"]
    assert tokenizer(text_target="d") == tokenizer("d")
    assert tokenizer("a", text_target="d", text_pair_target="e")["labels"] == tokenizer.encode("d", "e")
    with pytest.raises(InputError, match="`text` must be a string"):
        tokenizer()


def test_pairs_of_words_in_one_list(tokenizer: RemBertTokenizer) -> None:
    pairs = [(["a", "b"], ["c"]), [["d"], ["e", "f"]]]
    firsts, seconds = [["a", "b"], ["d"]], [["c"], ["e", "f"]]
    assert tokenizer(pairs, is_split_into_words=True) == tokenizer(firsts, seconds, is_split_into_words=True)
    assert tokenizer(pairs, is_split_into_words=True).word_ids(1) == [None, 0, None, 0, 1, None]


def test_one_warning_of_a_row_that_is_too_long(tokenizer_class: type[RemBertTokenizer]) -> None:
    tokenizer = tokenizer_class(MODEL, model_max_length=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer("a b c d", verbose=False)
        tokenizer("a b c d", truncation=True)
        tokenizer("a b")
        tokenizer_class(MODEL, model_max_length=4, verbose=False)("a b c d")
    with pytest.warns(UserWarning, match="A row of 6 tokens is longer than `model_max_length=4`") as caught:
        assert [len(tokenizer(text)["input_ids"]) for text in ("a b c d", "a b c d e")] == [6, 7]
    assert [warning.filename for warning in caught] == [__file__]


def test_settable_ids(fresh: RemBertTokenizer) -> None:
    fresh.pad_token_id = fresh.eos_token_id
    assert (fresh.pad_token, fresh.pad_token_id) == ("[SEP]", 4)
    fresh.mask_token_id = None
    assert fresh.mask_token is None
    with pytest.raises(InputError, match="from 0 to 31999"):
        fresh.bos_token_id = 32000


def test_names_of_a_tokenizer(tokenizer_class: type[RemBertTokenizer], tmp_path: Path) -> None:
    tokenizer = tokenizer_class(
        MODEL, model_max_length=512, extra_special_tokens=["<e>"], model_input_names=["input_ids", "attention_mask"]
    )
    assert tokenizer.vocab == tokenizer.get_vocab()
    assert tokenizer.vocab_file == str(MODEL)
    assert (tokenizer.max_len_single_sentence, tokenizer.max_len_sentences_pair) == (510, 509)
    assert tokenizer.pad_token_type_id == 0
    assert list(tokenizer("a")) == ["input_ids", "attention_mask"]
    assert list(tokenizer("a", return_token_type_ids=True)) == ["input_ids", "token_type_ids", "attention_mask"]
    assert type(tokenizer.model_input_names) is list
    tokenizer.save_pretrained(tmp_path)
    loaded = tokenizer_class.from_pretrained(tmp_path)
    assert loaded.model_input_names == ["input_ids", "attention_mask"]
    assert loaded.name_or_path == str(tmp_path)
    again = tokenizer_class(**loaded.init_kwargs)
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert again.init_kwargs == loaded.init_kwargs
    assert type(tokenizer_class(MODEL).model_input_names) is list
    with pytest.raises(InputError, match="`input_ids` first"):
        tokenizer_class(MODEL, model_input_names=["tokens"])
    (tmp_path / "sentencepiece.model").unlink()
    assert tokenizer_class.from_pretrained(tmp_path).vocab_file is None


def test_training_a_new_tokenizer(tokenizer_class: type[RemBertTokenizer]) -> None:
    old = tokenizer_class(MODEL, model_max_length=77, do_lower_case=True, padding_side="left")
    old.add_tokens([AddedToken("<plain>", lstrip=True)])
    words = [
        *("the", "of", "and", "a", "to", "in", "is", "you", "that", "it", "he", "was", "with", "are", "at", "one")
    ]
    texts = [" ".join(words[(i * 7 + j * j) % len(words)] for j in range(9)) + " Ａ ﬁne ½" for i in range(200)]
    batches = (texts[i : i + 20] for i in range(0, len(texts), 20))
    new = old.train_new_from_iterator(
        batches, 80, length=200, new_special_tokens=["<new>"], special_tokens_map={"<pad>": "<p>"}
    )
    assert type(new) is tokenizer_class
    assert new.vocab_size <= 80 < old.vocab_size
    model = new.sentencepiece_model
    assert model.tokens[:7] == ["<p>", "</s>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "<new>"]
    assert (new.pad_token_id, new.cls_token_id, new.mask_token_id) == (0, 3, 5)
    assert new.additional_special_tokens == ["<new>"]
    assert (new.model_max_length, new.do_lower_case, new.padding_side) == (77, True, "left")
    assert new.convert_tokens_to_ids("<plain>") == new.vocab_size
    ids = new.encode("The ½ WAS [MASK] <plain>Ａ ﬁne")
    assert new.unk_token_id not in ids
    assert new.decode(ids, skip_special_tokens=True) == "the 1⁄2 was<plain> a fine"
    # SentencePiece's own training on the same texts, with its own normaliser.
    own = tokenizers_of(train(lines=[text.lower() for text in texts], vocab_size=80 - 7 + 1, unk_id=0, bos_id=-1,
                              eos_id=-1, normalization_rule_name="nmt_nfkc"))  # fmt: skip
    assert new.tokenize("they are with you at one") == own.encode("they are with you at one", out_type=str)
    assert model.tokens[7:] == [own.IdToPiece(i) for i in range(1, own.GetPieceSize())]
    with pytest.raises(InputError, match="SentencePiece cannot train"):
        old.train_new_from_iterator([], 80)
    with pytest.raises(InputError, match="must give texts"):
        old.train_new_from_iterator([[3]], 80)
    with pytest.raises(ZeroDivisionError):  # never a model of the texts before it
        old.train_new_from_iterator((texts[1 // (2 - number)] for number in range(3)), 80)


def tokenizers_of(content: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=content)


def test_names_of_the_package() -> None:
    assert rembert.AddedToken("x", lstrip=True).lstrip
    for name in ("rembert.pt", "rembert.tf"):
        try:
            package = __import__(name, fromlist=["AddedToken"])
        except ImportError:  # its framework is not installed
            continue
        assert package.AddedToken is AddedToken
        assert package.BatchEncoding is BatchEncoding
