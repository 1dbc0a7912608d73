"""Reading and writing: directories of every writer, damaged files, files that disagree."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rembert import RemBertTokenizer, RemBertTokenizerFast
from rembert.common.errors import InputError, MissingDependencyError, NotFoundError, TokenizerError
from rembert.common.tokenization import AddedToken
from rembert.common.tokenization.sentencepiece_model import empty_proto
from tests.common.tokenizer_cases import MODEL, TRICKY, random_texts, train

TEXTS = [*TRICKY, "a<new> b [MASK] c", *random_texts(200, 11)]
# The normaliser that transformers 4 writes for a cased and for an uncased model, before its `Precompiled` step.
CASED = [
    {"type": "Replace", "pattern": {"String": "``"}, "content": '"'},
    {"type": "Replace", "pattern": {"String": "''"}, "content": '"'},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
]
UNCASED = [*CASED, {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]


def ids_of(tokenizer: RemBertTokenizer) -> list[list[int]]:
    return tokenizer(TEXTS)["input_ids"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as this library writes it, which no test may change."""
    directory = tmp_path_factory.mktemp("written")
    RemBertTokenizer(MODEL).save_pretrained(directory)
    return directory


@pytest.fixture
def saved(written: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(written, tmp_path, dirs_exist_ok=True))


def change(path: Path, edit: Callable[..., Any]) -> None:
    content = json.loads(path.read_text("utf-8"))
    edit(content)
    path.write_text(json.dumps(content), "utf-8")


def as_transformers_4(directory: Path, steps: list[Any], **config: Any) -> None:
    """Make a directory as transformers 4.57 writes it: its normaliser, its configuration without our key."""

    def edit_json(content: dict[str, Any]) -> None:
        charsmap = [s for s in content["normalizer"]["normalizers"] if s["type"] == "Precompiled"]
        content["normalizer"]["normalizers"] = steps + charsmap
        metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
        content["pre_tokenizer"] = metaspace
        added = {"id": 1, "content": "</s>", "special": True, "normalized": False}
        content["added_tokens"].append(added | {"lstrip": False, "rstrip": False, "single_word": False})

    def edit_config(content: dict[str, Any]) -> None:
        del content["rembert_version"]
        content.update(tokenizer_class="RemBertTokenizer", extra_special_tokens={}, **config)

    change(directory / "tokenizer.json", edit_json)
    change(directory / "tokenizer_config.json", edit_config)


def test_a_saved_tokenizer_loads_the_same(
    tokenizer_class: type[RemBertTokenizer], fresh: RemBertTokenizer, tmp_path: Path
) -> None:
    tokens = [AddedToken("<new>", lstrip=True), AddedToken("wörd", single_word=True, normalized=False)]
    fresh.add_tokens(tokens)
    fresh.add_special_tokens({"additional_special_tokens": ["<e>"], "pad_token": "[PAD]"})
    fresh.model_max_length, fresh.padding_side, fresh.remove_space = 77, "left", False
    paths = fresh.save_pretrained(tmp_path / "deep" / "er")
    assert sorted(path.rsplit("/", 1)[1] for path in paths) == sorted(
        [
            "added_tokens.json",
            "sentencepiece.model",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    )
    loaded = tokenizer_class.from_pretrained(tmp_path / "deep" / "er")
    assert ids_of(loaded) == ids_of(fresh)
    assert loaded.added_tokens_decoder == fresh.added_tokens_decoder
    assert loaded.special_tokens_map == fresh.special_tokens_map
    for name in ("model_max_length", "padding_side", "remove_space", "pad_token_id", "do_lower_case", "keep_accents"):
        assert getattr(loaded, name) == getattr(fresh, name)
    assert tokenizer_class.from_pretrained(tmp_path / "deep" / "er", model_max_length=5).model_max_length == 5


@pytest.mark.parametrize("options", [{}, {"do_lower_case": True}, {"keep_accents": False}, {"cls_token": "<s>"}])
def test_the_tokenizer_json_alone_gives_the_same_ids(
    tokenizer_class: type[RemBertTokenizer], tmp_path: Path, options: dict[str, Any]
) -> None:
    original = tokenizer_class(MODEL, **options)
    original.add_tokens(["<new>"])
    original.save_pretrained(tmp_path)
    (tmp_path / "sentencepiece.model").unlink()
    expected = ids_of(original)
    assert ids_of(tokenizer_class.from_pretrained(tmp_path)) == expected
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        (tmp_path / name).unlink()
    if not options.get("cls_token"):  # which token opens a row is said in the other files
        assert ids_of(tokenizer_class.from_pretrained(tmp_path / "tokenizer.json")) == expected
        assert ids_of(tokenizer_class(tokenizer_file=tmp_path / "tokenizer.json")) == expected
        assert ids_of(tokenizer_class(MODEL, tokenizer_file=tmp_path / "tokenizer.json", **options)) == expected


def test_saving_what_came_from_a_tokenizer_json(
    tokenizer_class: type[RemBertTokenizer], saved: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (saved / "sentencepiece.model").unlink()
    again = tmp_path_factory.mktemp("again")
    tokenizer_class.from_pretrained(saved).save_pretrained(again)
    assert ids_of(tokenizer_class(again / "sentencepiece.model")) == ids_of(tokenizer_class(MODEL))


def test_save_vocabulary_writes_the_very_file(fresh: RemBertTokenizer, tmp_path: Path) -> None:
    assert fresh.save_vocabulary(tmp_path) == (str(tmp_path / "sentencepiece.model"),)
    (path,) = fresh.save_vocabulary(tmp_path, filename_prefix="my")
    assert path == str(tmp_path / "my-sentencepiece.model")
    assert (tmp_path / "my-sentencepiece.model").read_bytes() == MODEL.read_bytes()
    with pytest.raises(InputError, match="must be an existing directory"):
        fresh.save_vocabulary(tmp_path / "none")
    with pytest.raises(InputError, match=r"my-sentencepiece\.model, which is a file"):
        fresh.save_pretrained(path)


@pytest.mark.parametrize("name", ["sentencepiece.model", "sent_piece.model"])
def test_a_directory_with_only_a_model(tokenizer_class: type[RemBertTokenizer], tmp_path: Path, name: str) -> None:
    shutil.copy(MODEL, tmp_path / name)
    assert ids_of(tokenizer_class.from_pretrained(tmp_path)) == ids_of(tokenizer_class(MODEL))
    assert ids_of(tokenizer_class.from_pretrained(tmp_path / name)) == ids_of(tokenizer_class(MODEL))


def test_a_cased_directory_of_transformers_4(tokenizer_class: type[RemBertTokenizer], saved: Path) -> None:
    as_transformers_4(saved, CASED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer = tokenizer_class.from_pretrained(saved)
    assert ids_of(tokenizer) == ids_of(tokenizer_class(MODEL))


def test_a_lower_casing_tokenizer_json_gives_way_to_the_model(
    tokenizer_class: type[RemBertTokenizer], saved: Path
) -> None:
    as_transformers_4(saved, UNCASED, do_lower_case=True, keep_accents=False)
    with pytest.warns(UserWarning, match="model is used") as caught:
        tokenizer = tokenizer_class.from_pretrained(saved)
    assert len(caught) == 1
    assert "tokenizer.json lower-cases and strips accents" in str(caught[0].message)
    assert (tokenizer.do_lower_case, tokenizer.keep_accents) == (False, True)
    assert ids_of(tokenizer) == ids_of(tokenizer_class(MODEL))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = tokenizer_class.from_pretrained(saved, do_lower_case=True, keep_accents=False)
    assert asked.encode("ÉTÉ") == asked.encode("ete")


def test_tokens_that_only_transformers_adds_are_left_out(tokenizer_class: type[RemBertTokenizer], saved: Path) -> None:
    # What its slow class writes with its default arguments: [UNK] and [PAD] beyond the vocabulary.
    as_transformers_4(saved, CASED)
    (saved / "tokenizer.json").unlink()

    def edit(content: dict[str, Any]) -> None:
        for index, token in ((32000, "[UNK]"), (32001, "[PAD]")):
            content["added_tokens_decoder"][str(index)] = {"content": token, "special": True, "normalized": False}
        content.update(pad_token="[PAD]", unk_token="[UNK]")

    change(saved / "tokenizer_config.json", edit)
    (saved / "added_tokens.json").write_text('{"[PAD]": 32001, "[UNK]": 32000}')
    tokenizer = tokenizer_class.from_pretrained(saved)
    assert (len(tokenizer), tokenizer.pad_token, tokenizer.pad_token_id, tokenizer.unk_token_id) == (
        32000,
        "<pad>",
        0,
        2,
    )


def test_files_of_older_transformers(tokenizer_class: type[RemBertTokenizer], tmp_path: Path) -> None:
    shutil.copy(MODEL, tmp_path / "sentencepiece.model")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 256}')
    (tmp_path / "special_tokens_map.json").write_text(
        '{"additional_special_tokens": ["<e>"], "mask_token": {"content": "[MASK]", "lstrip": true}}'
    )
    (tmp_path / "added_tokens.json").write_text('{"<e>": 32001, "<new>": 32000}')
    tokenizer = tokenizer_class.from_pretrained(tmp_path)
    assert tokenizer.get_added_vocab() | {"<e>": 32001, "<new>": 32000} == tokenizer.get_added_vocab()
    assert tokenizer.additional_special_tokens == ["<e>"]
    assert tokenizer.model_max_length == 256
    assert tokenizer.tokenize("is [MASK]<new>") == ["▁is", "[MASK]", "<new>"]


def test_a_directory_of_transformers_5(tokenizer_class: type[RemBertTokenizer], saved: Path) -> None:
    as_transformers_4(saved, CASED)
    for name in ("sentencepiece.model", "special_tokens_map.json"):
        (saved / name).unlink()
    (saved / "tokenizer_config.json").write_text(
        json.dumps({"backend": "tokenizers", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "<pad>",
                    "unk_token": "<unk>", "mask_token": "[MASK]", "do_lower_case": False, "keep_accents": True,
                    "extra_special_tokens": ["<pad>", "</s>"], "tokenizer_class": "RemBertTokenizer"})
    )  # fmt: skip
    assert ids_of(tokenizer_class.from_pretrained(saved)) == ids_of(tokenizer_class(MODEL))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["model"]["vocab"].pop(), "31999 and 32000 tokens"),
        (lambda c: c["model"]["vocab"][900].__setitem__(1, -3.25), r"token 900 \(.*\) has the scores -3.25 and"),
        (lambda c: c["model"]["vocab"][900].__setitem__(0, "other"), "token 900 is 'other' and"),
        (lambda c: c["model"]["vocab"].insert(10, c["model"]["vocab"].pop(900)), "token 10 is"),
        (lambda c: c["model"].update(unk_id=7), "the unknown token 7 and 2"),
        (lambda c: c["model"].update(unk_id=None), "must name the unknown token"),
        (lambda c: c["model"].update(type="BPE"), "must hold a Unigram model. Received: `model.type='BPE'`"),
        (lambda c: c.pop("model"), "must hold a Unigram model"),
        (lambda c: c["model"].update(vocab=[1, 2]), "not a well-formed"),
        (lambda c: c.update(added_tokens=[{"content": "x"}]), "not a well-formed"),
        (lambda c: c.update(added_tokens=[{"content": "x", "id": float("inf")}]), "not a well-formed"),
        (lambda c: c.update(normalizer={"type": []}), "not a well-formed"),
        (lambda c: c["model"]["vocab"][900].__setitem__(0, "\ud800"), "half of a surrogate pair"),
        (lambda c: c["model"]["vocab"][900].__setitem__(1, float("nan")), r"token 900 \(.*\) has the scores nan and"),
    ],
)
def test_a_tokenizer_json_that_disagrees_or_is_damaged(
    tokenizer_class: type[RemBertTokenizer], saved: Path, edit: Callable[..., Any], message: str
) -> None:
    change(saved / "tokenizer.json", edit)
    with pytest.raises(TokenizerError, match=message) as caught:
        tokenizer_class.from_pretrained(saved)
    assert "tokenizer.json" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change_to"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": value})
        for value in (None, 3, ["x"], {"x": {"content": "x"}}, {"32000": "\ud800"}, {"32000": {}}, {"32000": [1]},
                      {"9" * 40: "x"}, {"-1": "x"})
    ] + [
        ("special_tokens_map.json", {name: value})
        for name, value in (("pad_token", 3), ("pad_token", {"content": 1}), ("pad_token", ""),
                            ("additional_special_tokens", "x"), ("additional_special_tokens", [1]),
                            ("extra_special_tokens", {"x": None}))
    ] + [
        ("added_tokens.json", {"<x>": value}) for value in (None, "32000", -1, 1.5, True, [], 10**40)
    ],
)  # fmt: skip
def test_damaged_tokens_name_the_file(
    tokenizer_class: type[RemBertTokenizer], tmp_path: Path, name: str, change_to: dict[str, Any]
) -> None:
    shutil.copy(MODEL, tmp_path / "sentencepiece.model")
    (tmp_path / name).write_text(json.dumps(change_to))
    with pytest.raises(TokenizerError, match=r"must be|must have.*Received|half of a surrogate pair") as caught:
        tokenizer_class.from_pretrained(tmp_path)
    assert name in str(caught.value)


def test_an_added_token_with_another_id(tokenizer_class: type[RemBertTokenizer], saved: Path) -> None:
    change(saved / "tokenizer_config.json", lambda c: c["added_tokens_decoder"].update({"9": {"content": "[MASK]"}}))
    with pytest.raises(TokenizerError, match=r"\[MASK\]"):
        tokenizer_class.from_pretrained(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no file or directory"),
        (b"", "damaged|no tokens"),
        (b"hello", "damaged|no tokens"),
        (MODEL.read_bytes()[:400_000], "damaged|not a complete"),
        (MODEL.read_bytes()[:-1000], "damaged|not a complete"),
        (train("bpe"), "which is a BPE model"),
        (train("char"), "which is a character model"),
        (train("word"), "which is a word model"),
        (train(byte_fallback=True, vocab_size=320), "byte_fallback"),
    ],
)
def test_an_invalid_model_file_is_refused(
    tokenizer_class: type[RemBertTokenizer], tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "bad.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TokenizerError, match=message) as caught:
        tokenizer_class.from_pretrained(path)
    assert "bad.model" in str(caught.value)


def test_a_model_file_with_a_token_that_is_not_utf8(tokenizer_class: type[RemBertTokenizer], tmp_path: Path) -> None:
    path = tmp_path / "bad.model"
    path.write_bytes(MODEL.read_bytes().replace("▁The".encode(), b"\xff" * 6, 1))
    tokenizer = tokenizer_class(path)  # SentencePiece takes it
    with pytest.raises(TokenizerError, match=r"bad\.model is damaged: a token is not UTF-8"):
        tokenizer.get_vocab()


def test_other_missing_files_are_named(tokenizer_class: type[RemBertTokenizer], tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="There is no file"):  # an OSError too
        tokenizer_class(tmp_path / "missing.model")
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        tokenizer_class.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="needs a file"):
        tokenizer_class()
    shutil.copy(MODEL, tmp_path / "sentencepiece.model")
    (tmp_path / "tokenizer_config.json").write_text("[1")
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json cannot be read as JSON"):
        tokenizer_class.from_pretrained(tmp_path)


def test_the_backend_agrees_on_text_without_unusual_marks() -> None:
    tokenizer = RemBertTokenizerFast(MODEL)
    backend = tokenizer.backend_tokenizer
    for text in ("", "  ", "Ufaransa ni [MASK].  ", "``quoted'' x", "x▁y", "½ ﬁne Ａ１", "a <pad> b "):
        encoded = backend.encode(text)
        assert encoded.ids == tokenizer.encode(text), text
        assert encoded.type_ids == [0] * len(encoded.ids)
    assert backend.encode("a", "b").ids == tokenizer.encode("a", "b")
    assert (RemBertTokenizer.is_fast, RemBertTokenizerFast.is_fast) == (False, True)


def test_a_protobuf_too_old_for_sentencepiece_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its generated module then fails with an ImportError, which this stand-in without it raises too."""
    monkeypatch.setitem(sys.modules, "sentencepiece", SimpleNamespace())
    with pytest.raises(MissingDependencyError, match=r"protobuf [\d.]+ needs `sentencepiece<=0\.2\.1`, but version"):
        empty_proto()
