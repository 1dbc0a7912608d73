"""Special tokens, added tokens, ids and text."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert import RemBertTokenizer
from rembert.common.errors import InputError
from rembert.common.tokenization import AddedToken
from rembert.common.tokenization.batch_encoding import BatchEncoding
from tests.common.tokenizer_cases import MODEL, TRICKY, processor, random_texts, train


def test_special_tokens_come_from_the_model(tokenizer: RemBertTokenizer) -> None:
    assert tokenizer.all_special_tokens == ["[CLS]", "[SEP]", "<unk>", "<pad>", "[MASK]"]
    assert tokenizer.all_special_ids == [3, 4, 2, 0, 5]
    assert tokenizer.special_tokens_map["mask_token"] == "[MASK]"
    assert len(tokenizer) == tokenizer.vocab_size == 32000


@pytest.mark.parametrize(
    ("options", "pad", "unk"),
    [
        ({"control_symbols": "[CLS],[SEP],[MASK]", "pad_id": 3}, "<pad>", "<unk>"),
        ({"control_symbols": "[CLS],[SEP],[MASK],[PAD]", "unk_piece": "[UNK]"}, "[PAD]", "[UNK]"),
        (
            {"user_defined_symbols": "<pad>,[CLS],[SEP],[MASK]", "unk_id": 3, "bos_id": 0, "eos_id": 1},
            "<pad>",
            "<unk>",
        ),
        ({"control_symbols": "[CLS],[SEP]"}, None, "<unk>"),
    ],
)
def test_padding_and_unknown_tokens_are_those_of_the_model(
    tokenizer_class: type[RemBertTokenizer], tmp_path: Path, options: dict[str, Any], pad: str | None, unk: str
) -> None:
    path = tmp_path / "sentencepiece.model"
    path.write_bytes(train(**options))
    tokenizer = tokenizer_class(path)
    assert (tokenizer.pad_token, tokenizer.unk_token) == (pad, unk)
    assert len(tokenizer) == tokenizer.vocab_size
    assert tokenizer.convert_tokens_to_ids("no such token") == tokenizer.unk_token_id
    assert (tokenizer.mask_token_id is None) == ("[MASK]" not in str(options))
    assert tokenizer.encode("the [CLS] of")[2] == tokenizer.cls_token_id


def test_a_model_without_cls_gets_the_special_tokens(tokenizer_class: type[RemBertTokenizer], tmp_path: Path) -> None:
    path = tmp_path / "plain.model"
    path.write_bytes(train())
    with pytest.warns(UserWarning, match=r"plain\.model has no \[CLS\].* \[CLS\], \[SEP\], <pad>, \[MASK\] got ids"):
        tokenizer = tokenizer_class(path)
    # The order of transformers 4.57's slow class, which does the same (with `unk_token="<unk>", pad_token="<pad>"`).
    size = tokenizer.vocab_size
    ids = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id]
    assert ids == list(range(size, size + 4))
    assert (tokenizer.unk_token_id, len(tokenizer)) == (0, size + 4)
    assert tokenizer.tokenize("the [MASK] of") == ["▁the", "[MASK]", "▁of"]
    tokenizer.save_pretrained(tmp_path / "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer_class.from_pretrained(tmp_path / "saved").get_vocab() == tokenizer.get_vocab()
        other = tokenizer_class(path, cls_token="<s>", sep_token="</s>", mask_token="<mask>")
    assert other.encode("")[0] == 1
    assert other.mask_token_id == other.vocab_size == len(other) - 1  # the user added it


def test_mask_takes_the_space_before_it(tokenizer: RemBertTokenizer) -> None:
    assert tokenizer.tokenize("is [MASK] .") == ["▁is", "[MASK]", "▁", "."]
    assert tokenizer.tokenize("is   [MASK].") == ["▁is", "[MASK]", "▁", "."]


def test_added_tokens(fresh: RemBertTokenizer) -> None:
    tokens = [AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True), AddedToken("zqx", single_word=True)]
    assert fresh.add_tokens(tokens) == 3
    assert fresh.add_tokens(tokens) == 0
    assert (len(fresh), fresh.vocab_size) == (32003, 32000)
    assert fresh.get_added_vocab()["zqx"] == fresh.get_vocab()["zqx"] == 32002
    assert fresh.encode("x<l>x  <l>  <r>  x zqx zqxx", add_special_tokens=False) == [
        948, 32000, 948, 32000, 32001, 948, 32002, *processor().encode("zqxx"),
    ]  # fmt: skip
    assert fresh.decode([948, 32000, 948]) == "x<l> x"
    assert fresh.convert_ids_to_tokens(32001) == "<r>"
    with pytest.raises(InputError, match=r"from 0 to 32002\. Received: 32003"):
        fresh.decode([32003])


def test_the_longest_added_token_wins(fresh: RemBertTokenizer) -> None:
    fresh.add_tokens(["<a>", "<a><b>", "<b>"])
    assert fresh.encode("<a><b><b><a>", add_special_tokens=False) == [32001, 32002, 32000]


def test_tokens_that_are_not_normalized_are_found_first(fresh: RemBertTokenizer) -> None:
    # As the `tokenizers` library has it, which reads the saved `tokenizer.json`.
    fresh.add_tokens(["ab", AddedToken("bc", normalized=False), AddedToken("word", single_word=True)])
    assert fresh.tokenize("abc") == ["▁a", "bc"]
    assert fresh.tokenize("bcword") == ["bc", "word"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("aaab", ["aab"]), ("aab", ["aab"]), ("ab", ["b"]), ("a", []), ("aaaab b", ["aab", "b"]), ("bb", ["b", "b"])],
)
def test_tokens_that_start_alike(fresh: RemBertTokenizer, text: str, found: list[str]) -> None:
    fresh.add_tokens(["aab", "b"])
    assert [token for token in fresh.tokenize(text) if token in ("aab", "b")] == found


def test_many_added_tokens_cost_little() -> None:
    tokenizer = RemBertTokenizer(MODEL)
    text = "Alle Menschen sind frei und gleich an Würde und Rechten geboren. " * 2000
    names = [f"{number:x}-{letter}" for letter in "abcdefgh" for number in range(2500)]
    start = time.process_time()
    tokenizer.add_tokens(names)  # 0.1 s; 5 s if each one is compared with all before it
    ids = tokenizer.encode(text + "9c3-h")  # 0.1 s; 5 s if each position is compared with each token
    assert time.process_time() - start < 5
    assert ids[-2] == tokenizer.convert_tokens_to_ids("9c3-h") == 32000 + names.index("9c3-h")


def test_normalized_tokens_match_normalized_text(tokenizer_class: type[RemBertTokenizer]) -> None:
    tokenizer = tokenizer_class(MODEL, do_lower_case=True, keep_accents=False)
    tokenizer.add_tokens([AddedToken("Élan", normalized=True), AddedToken("Brio", normalized=False)])
    assert tokenizer.tokenize("ÉLAN elan BRIO Brio") == [
        "Élan",
        "Élan",
        *processor().encode("brio", out_type=str),
        "Brio",
    ]


def test_added_special_tokens(fresh: RemBertTokenizer) -> None:
    assert fresh.add_special_tokens({"additional_special_tokens": ["<e1>", AddedToken("<e2>")]}) == 2
    assert fresh.additional_special_tokens_ids == [32000, 32001]
    assert fresh.decode(fresh.encode("a<e1>b"), skip_special_tokens=True) == "a b"
    assert fresh.add_special_tokens({"pad_token": "<p>", "additional_special_tokens": ["<e3>"]}) == 2
    assert fresh.pad_token_id == 32002
    assert fresh.additional_special_tokens == ["<e3>"]
    fresh.mask_token = "<e1>"
    assert fresh.mask_token_id == 32000
    with pytest.raises(InputError, match="`pad_token` must be a token of the vocabulary"):
        fresh.pad_token = "<nowhere>"
    with pytest.raises(InputError, match="Received: nose_token"):
        fresh.add_special_tokens({"nose_token": "x"})


@pytest.mark.parametrize("token", ["", 3, None, "\ud800"])
def test_bad_added_tokens(fresh: RemBertTokenizer, token: int | str | None) -> None:
    with pytest.raises(InputError):
        fresh.add_tokens([token])
    assert len(fresh) == 32000


@pytest.mark.parametrize("text", [text for text in TRICKY if "\x00" not in text] + random_texts(300, 3))
def test_decoding_equals_that_of_sentencepiece_for_known_tokens(text: str) -> None:
    tokenizer = _shared()
    ids = processor().encode(text)
    if tokenizer.unk_token_id not in ids:
        assert tokenizer.decode(ids) == processor().decode(ids)


def _shared(loaded: list[RemBertTokenizer] = []) -> RemBertTokenizer:  # noqa: B006 - one tokenizer for all examples
    if not loaded:
        loaded.append(RemBertTokenizer(MODEL))
    return loaded[0]


def test_decode(tokenizer: RemBertTokenizer) -> None:
    ids = tokenizer.encode("Hello , it 's [MASK] .")
    # As transformers' fast class has it.
    assert tokenizer.decode(ids) == "[CLS] Hello , it 's[MASK] .[SEP]"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Hello , it 's ."
    assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True) == "Hello, it's."
    assert tokenizer.batch_decode([ids, [13]], skip_special_tokens=True) == ["Hello , it 's .", "a"]
    assert tokenizer.decode(np.array(ids)) == tokenizer.decode(ids)
    assert tokenizer.decode(13) == "a"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode(np.array([[13], [187]])) == ["a", "b"]


def test_convert(tokenizer: RemBertTokenizer) -> None:
    assert tokenizer.convert_tokens_to_ids(["▁a", "[MASK]", "no such token", "\ud800"]) == [13, 5, 2, 2]
    assert tokenizer.convert_tokens_to_ids("▁a") == 13
    assert tokenizer.convert_ids_to_tokens([3, 13], skip_special_tokens=True) == ["▁a"]
    assert tokenizer.convert_ids_to_tokens(np.int64(13)) == "▁a"
    assert tokenizer.convert_tokens_to_string(["▁a", "b"]) == "ab"


@pytest.mark.parametrize("ids", [[-1], [32000], ["13"], [1.0], "13", None])
def test_bad_ids(tokenizer: RemBertTokenizer, ids: list[Any] | str | None) -> None:
    with pytest.raises(InputError, match="Received"):
        tokenizer.decode(ids)


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.convert_tokens_to_ids(None),
        lambda t: t.convert_tokens_to_ids([3]),
        lambda t: t.convert_tokens_to_ids([["a"]]),
        lambda t: t.convert_tokens_to_string([3]),
        lambda t: t.batch_decode(3),
        lambda t: t.tokenize(["a", "b"]),
        lambda t: t.tokenize([]),
        lambda t: t.tokenize(None),
        lambda t: t.tokenize("a", ["b"]),
        lambda t: t.add_special_tokens({"additional_special_tokens": "<e>"}),
        lambda t: t.add_special_tokens({"additional_special_tokens": None}),
        lambda t: t.add_special_tokens("<e>"),
        lambda t: RemBertTokenizer(MODEL, additional_special_tokens="<e>"),
    ],
)
def test_arguments_of_another_form_are_refused(fresh: RemBertTokenizer, call: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"must be .* Received: "):
        call(fresh)
    assert fresh.additional_special_tokens == []


def test_pickle_and_copy(fresh: RemBertTokenizer) -> None:
    fresh.add_tokens(["<new>"])
    expected = fresh("a<new> ½ b", return_offsets_mapping=True)
    for other in (pickle.loads(pickle.dumps(fresh)), copy.copy(fresh), copy.deepcopy(fresh)):
        assert type(other) is type(fresh)
        assert other("a<new> ½ b", return_offsets_mapping=True) == expected
    for other in (copy.deepcopy(fresh), copy.copy(fresh)):
        other.add_tokens(["<more>"])
        other.additional_special_tokens = ["<even more>"]
        assert other.sentencepiece_model is fresh.sentencepiece_model
        assert len(fresh) == 32001
        assert fresh.additional_special_tokens == []


def _encode_in_worker(arguments: tuple[RemBertTokenizer, str]) -> list[int]:
    tokenizer, text = arguments
    return tokenizer(text)["input_ids"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes(tokenizer: RemBertTokenizer, method: str) -> None:
    text = "Alle Menschen " * 1000
    expected = tokenizer(text)["input_ids"]  # uses threads here, before the fork
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map_async(_encode_in_worker, [(tokenizer, text)]).get(120) == [expected]


def test_torch_data_loader(tokenizer: RemBertTokenizer) -> None:
    data = pytest.importorskip("torch.utils.data")
    texts = [f"text number {number}" for number in range(8)]

    loader = data.DataLoader(texts, batch_size=4, num_workers=1, collate_fn=_Collate(tokenizer), timeout=120)
    batches = list(loader)
    expected = tokenizer(texts[:4], padding=True, return_tensors="pt")["input_ids"]
    assert batches[0]["input_ids"].tolist() == expected.tolist()
    assert batches[0].word_ids(0) == tokenizer(texts[:4], padding=True).word_ids(0)


class _Collate:
    def __init__(self, tokenizer: RemBertTokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, texts: list[str]) -> BatchEncoding:
        return self.tokenizer(texts, padding=True, return_tensors="pt")


def test_tf_data(tokenizer: RemBertTokenizer) -> None:
    tf = pytest.importorskip("tensorflow")

    def encode(text: bytes) -> np.ndarray:
        return np.array(tokenizer.encode(text.decode()), np.int32)

    texts = ["a b", "½ c d"]
    dataset = tf.data.Dataset.from_tensor_slices(texts).map(
        lambda text: tf.numpy_function(encode, [text], tf.int32), num_parallel_calls=2
    )
    assert [row.tolist() for row in dataset.as_numpy_iterator()] == [tokenizer.encode(text) for text in texts]
    columns = tf.data.Dataset.from_tensor_slices(dict(tokenizer(texts, padding=True, return_tensors="tf")))
    assert next(iter(columns))["input_ids"].shape == (7,)


def test_importing_the_tokenizers_loads_no_framework() -> None:
    import subprocess
    import sys

    code = "import sys, rembert; rembert.RemBertTokenizer; print({'torch', 'tensorflow', 'keras'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
