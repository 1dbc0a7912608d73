"""Token classification: a tag for each word, in any number of rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rembert.common.errors import DataError
from rembert.tasks import Task, get_task
from rembert.tasks.data import DataWarning
from rembert.tasks.examples import Example
from tests.tasks.support import (
    SENTENCE,
    TAGS,
    TOKENIZER,
    config,
    conll,
    lines,
    opened,
)


def test_a_single_tag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least two tags"):
        opened("token-classification", conll(tmp_path / "a.txt", [(["x", "y"], ["O", "O"])]))


def test_an_unknown_tag_is_named_with_its_sentence_and_word(tmp_path: Path) -> None:
    task, _ = opened("token-classification", conll(tmp_path / "a.txt", [(SENTENCE, TAGS)]))
    other = conll(tmp_path / "b.txt", [(["x"], ["O"]), (["y", "z"], ["O", "B-SHIP"])])
    with pytest.raises(DataError, match=r"b\.txt:3: the tag must be one .* Received: 'B-SHIP' at word 2"):
        list(task.read(other))


def test_words_are_labelled_at_their_first_token(tmp_path: Path) -> None:
    task, [example] = opened("token-classification", conll(tmp_path / "a.conll", [(SENTENCE, TAGS)]))
    [feature] = task.features(example)
    encoded = TOKENIZER()(SENTENCE, is_split_into_words=True)
    assert feature["input_ids"].tolist() == encoded["input_ids"]
    names = task.config_overrides()["id2label"]
    # I-LOC is known, too, though no location here has two words.
    assert list(names.values()) == ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]
    seen: set[int] = set()
    for word, label in zip(encoded.word_ids(), feature["labels"], strict=True):
        if word is None or word in seen:
            assert label == -100
        else:
            assert names[int(label)] == TAGS[word]
            seen.add(word)
    assert seen == set(range(len(SENTENCE)))


def tagged(task: Task, example: Example, tags: list[str]) -> list[dict[str, np.ndarray]]:
    """What a model would give that is sure of these tags."""
    ids = {name: number for number, name in task.config_overrides()["id2label"].items()}
    outputs = []
    for feature in task.features(example):
        logits = np.zeros((1, len(feature["input_ids"]), len(ids)), np.float32)
        for token, word in zip(feature["first_tokens"], feature["word_numbers"], strict=True):
            logits[0, token, ids[tags[word]]] = 5.0
        outputs += task.outputs([feature], {"logits": logits})
    return outputs


@pytest.mark.parametrize("max_length", [64, 8])
def test_every_word_of_a_long_sentence_has_a_tag(tmp_path: Path, max_length: int) -> None:
    path = conll(tmp_path / "a.conll", [(SENTENCE, TAGS)])
    task, [example] = opened("token-classification", path, max_length=max_length)
    features = task.features(example)
    assert (len(features) > 1) == (max_length == 8)
    assert all(len(feature["input_ids"]) <= max_length for feature in features)
    outputs = tagged(task, example, TAGS)
    found = task.decode(example, outputs)
    assert found["tags"] == TAGS
    assert [(each["label"], each["tokens"]) for each in found["entities"]] == [
        ("PER", ["Wangari", "Maathai"]),
        ("LOC", ["Nyeri"]),
        ("LOC", ["Kenya"]),
    ]
    assert task.score([example], [outputs])["f1"] == 1.0
    wrong = tagged(task, example, ["B-PER", "O", *TAGS[2:]])  # half a name is no name
    assert task.score([example], [wrong])["f1"] == pytest.approx(2 / 3)


def test_parts_of_speech_are_scored_by_word(tmp_path: Path) -> None:
    sentence = (["Paka", "analala", "."], ["NOUN", "VERB", "PUNCT"])
    task, [example] = opened("token-classification", conll(tmp_path / "a.conll", [sentence]))
    assert task.metric == "accuracy"
    outputs = tagged(task, example, ["NOUN", "NOUN", "PUNCT"])
    assert task.score([example], [outputs])["accuracy"] == pytest.approx(2 / 3)


def test_a_word_without_tokens_is_outside_any_entity(tmp_path: Path) -> None:
    words = ["Nyeri", "\u200b", "Kenya"]  # a zero-width space between them
    rows = [{"tokens": words, "tags": ["B-LOC", "O", "B-LOC"]}]
    task, [example] = opened("token-classification", lines(tmp_path / "a.jsonl", rows))
    assert task.decode(example, tagged(task, example, ["B-LOC", "B-LOC", "B-LOC"]))["tags"][0] == "B-LOC"


def test_iob1_tags_are_rewritten(tmp_path: Path) -> None:
    path = conll(tmp_path / "a.conll", [(SENTENCE, [tag.replace("B-", "I-") for tag in TAGS])])
    _, [example] = opened("token-classification", path, scheme="iob1")
    assert list(example.tags) == TAGS


@pytest.mark.parametrize(
    "rewrite",
    [
        {"B-PER": "B-PER", "I-PER": "E-PER", "B-LOC": "S-LOC"},  # IOBES
        {"B-PER": "B-PER", "I-PER": "L-PER", "B-LOC": "U-LOC"},  # BILOU
        {"B-PER": "PER-B", "I-PER": "PER-I", "B-LOC": "LOC-B"},
        {"B-PER": "B_PER", "I-PER": "I_PER", "B-LOC": "B_LOC"},
        {"B-PER": "b-per", "I-PER": "i-per", "B-LOC": "b-loc", "O": "o"},
        {"O": "0"},
    ],
)
def test_every_scheme_is_scored_by_entities(tmp_path: Path, rewrite: dict[str, str]) -> None:
    tags = [rewrite.get(tag, tag) for tag in TAGS]
    task, [example] = opened("token-classification", conll(tmp_path / "a.conll", [(SENTENCE, tags)]))
    assert task.metric == "f1"
    assert task.score([example], [tagged(task, example, tags)])["f1"] == 1.0
    wrong = [tags[0], tags[2], *tags[2:]]  # half a name is no name
    assert task.score([example], [tagged(task, example, wrong)])["f1"] == pytest.approx(2 / 3)
    loaded = get_task("token-classification", TOKENIZER(), max_length=64)
    loaded.prepare(config=config(**task.config_overrides()))
    assert loaded.notation == task.notation


def test_one_digit_for_the_letter_o_is_read_as_it(tmp_path: Path) -> None:
    tags = [*TAGS[:-1], "0"]
    task, [example] = opened("token-classification", conll(tmp_path / "a.conll", [(SENTENCE, tags)]))
    assert task.labels == ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]
    scores = task.score([example], [tagged(task, example, TAGS)])
    assert (scores["f1"], scores["accuracy"]) == (1.0, 1.0)
    with pytest.warns(DataWarning, match=r"'0' \(1\) is read as 'O'"):
        task.tell_classes("training", task.report.classes)


def test_tags_of_no_known_scheme_are_warned_of_or_refused(tmp_path: Path) -> None:
    path = conll(tmp_path / "a.conll", [(SENTENCE, [*TAGS[:-1], "MISC"])])
    with pytest.warns(DataWarning, match=r"'B-LOC', 'B-PER', 'I-PER' look like .* but 'MISC' belong"):
        task, _ = opened("token-classification", path)
    assert task.metric == "accuracy"
    assert opened("token-classification", path, scheme="plain")[0].metric == "accuracy"
    with pytest.raises(DataError, match=r"must be O, B-…, I-… in iob2. Received: 'MISC' at word 8"):
        opened("token-classification", path, scheme="iob2")


def test_a_first_token_that_is_a_number_sign_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("# O\nEndSARS B-EVENT\n\n# a comment\n# note\nAmina B-PER\nlala O\n\n# B-EVENT\nx O\n")
    found = list(get_task("token-classification", TOKENIZER(), max_length=64).read(path))
    assert [example.words for example in found] == [("#", "EndSARS"), ("Amina", "lala"), ("#", "x")]
    assert found[2].tags == ("B-EVENT", "O")
