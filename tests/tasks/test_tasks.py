"""The six tasks, from files to features and back: each against what was worked out by hand from the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.common.errors import DataError, InputError
from rembert.common.parameters import HEADS
from rembert.tasks import TASKS, DataOptions, Task, get_task
from rembert.tasks.examples import Example
from tests.tasks.support import CONTEXT, TOKENIZER, config, squad_file


def lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def opened(name: str, path: Path, *, max_length: int = 64, **options: Any) -> tuple[Task, list[Example]]:
    """A task prepared with a file's examples."""
    task = get_task(name, TOKENIZER(), max_length=max_length, **options)
    examples = list(task.read(path))
    task.prepare(examples)
    return task, examples


def test_every_head_has_a_task() -> None:
    tasks = [get_task(name, TOKENIZER(), max_length=256) for name in TASKS]
    assert [task.name for task in tasks] == list(TASKS)
    assert {task.head for task in tasks} == set(HEADS) - {"model"}
    with pytest.raises(InputError, match="translation"):
        get_task("translation", TOKENIZER())
    with pytest.raises(InputError, match="max_length=2"):
        get_task("masked-lm", TOKENIZER(), max_length=2)


# ---------------------------------------------------------------------- sequence classification

ROWS = [
    {"text": "Der Zug hält in Graz.", "label": "travel"},
    {"text": "Die Mannschaft gewann drei zu eins.", "label": "sport", "language": "de"},
    {"text": "Timu ilishinda mbio.", "label": "sport", "language": "sw"},
]


def test_single_labels_become_class_ids(tmp_path: Path) -> None:
    task, examples = opened("sequence-classification", lines(tmp_path / "a.jsonl", ROWS))
    assert task.config_overrides() == {
        "problem_type": "single_label_classification",
        "id2label": {0: "sport", 1: "travel"},
    }
    features = [feature for example in examples for feature in task.features(example)]
    batch = task.collate(features)
    expected = TOKENIZER()([row["text"] for row in ROWS], padding=True, return_tensors="np")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        np.testing.assert_array_equal(batch[name], expected[name])
    assert batch["labels"].tolist() == [1, 0, 0]
    outputs = [[{"logits": np.array(row)}] for row in ([2.0, 0.0], [1.0, 0.0], [0.0, 3.0])]
    scores = task.score(examples, outputs)
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert (scores["accuracy_de"], scores["accuracy_sw"]) == (1.0, 0.0)
    found = task.decode(examples[0], outputs[0])
    assert (found["label"], found["score"]) == ("sport", pytest.approx(1 / (1 + np.exp(-2))))
    assert sum(found["scores"].values()) == pytest.approx(1)


def test_labels_are_restored_from_a_configuration(tmp_path: Path) -> None:
    task, _ = opened("sequence-classification", lines(tmp_path / "a.jsonl", ROWS))
    later = get_task("sequence-classification", TOKENIZER(), max_length=64)
    later.prepare(config=config(**task.config_overrides()))
    assert later.config_overrides() == task.config_overrides()
    other = lines(tmp_path / "b.jsonl", [ROWS[0], {"text": "Regen", "label": "weather"}])
    with pytest.raises(DataError, match=r"b\.jsonl:2: the label must be one of the model's: sport, travel.*'weather'"):
        list(later.read(other))
    lenient = get_task("sequence-classification", TOKENIZER(), max_length=64, data=DataOptions(skip_bad_lines=True))
    lenient.prepare(config=config(**task.config_overrides()))
    assert len(list(lenient.read(other))) == 1
    assert lenient.report.skipped == 1


def test_numeric_names_are_sorted_by_value(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": label} for label in (10, 2, 2, 1)]
    task, _ = opened("sequence-classification", lines(tmp_path / "a.jsonl", rows))
    assert task.config_overrides()["id2label"] == {0: "1", 1: "2", 2: "10"}


def test_several_labels_become_indicators(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": ["b", "a"]}, {"text": "y", "label": []}, {"text": "z", "label": ["c"]}]
    task, examples = opened("sequence-classification", lines(tmp_path / "a.jsonl", rows))
    assert task.config_overrides()["problem_type"] == "multi_label_classification"
    batch = task.collate([feature for example in examples for feature in task.features(example)])
    assert batch["labels"].tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert batch["labels"].dtype == np.float32
    outputs = [[{"logits": np.array(row)}] for row in ([1.0, 2.0, -1.0], [-1.0, -1.0, -9.0], [-1.0, -1.0, -1.0])]
    assert task.score(examples, outputs)["accuracy"] == pytest.approx(2 / 3)
    assert task.decode(examples[0], outputs[0])["labels"] == ["a", "b"]
    table = tmp_path / "a.csv"
    table.write_text("text,label\nx,b|a\ny,\nz,c\n")
    split, same = opened("sequence-classification", table, label_separator="|")
    again = split.collate([feature for example in same for feature in split.features(example)])
    np.testing.assert_array_equal(again["labels"], batch["labels"])


def test_fractions_mean_regression(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": 1.5}, {"text": "y", "label": 2}, {"text": "z", "label": 0.25}]
    task, examples = opened("sequence-classification", lines(tmp_path / "a.jsonl", rows))
    assert task.config_overrides() == {"problem_type": "regression", "num_labels": 1}
    assert task.metric == "pearson"
    batch = task.collate([feature for example in examples for feature in task.features(example)])
    assert batch["labels"].tolist() == [1.5, 2.0, 0.25]
    outputs = [[{"logits": np.array([2 * row["label"] + 1])}] for row in rows]  # a line: correlation 1
    scores = task.score(examples, outputs)
    assert (scores["pearson"], scores["spearman"]) == (pytest.approx(1), pytest.approx(1))
    assert task.decode(examples[0], outputs[0]) == {"value": 4.0}


def test_a_name_among_numbers_is_refused_unless_they_are_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,0.5\ny,high\nz,2\n")
    with pytest.raises(
        DataError, match=r"a\.csv:3: the label must be a number, like 0\.5 elsewhere.* Received: 'high'"
    ):
        opened("sequence-classification", path)
    task, _ = opened("sequence-classification", path, problem_type="single_label_classification")
    assert task.labels == ["0.5", "2", "high"]


def test_pairs_are_encoded_together_and_long_texts_are_truncated(tmp_path: Path) -> None:
    long = "eins zwei drei vier fünf " * 40
    rows = [{"premise": "Es regnet.", "hypothesis": "Es ist nass.", "label": "x"}, {"text": long, "label": "y"}]
    path = lines(tmp_path / "a.jsonl", rows)
    task, examples = opened("sequence-classification", path, max_length=20)
    features = [task.features(example)[0] for example in examples]
    pair = TOKENIZER()(rows[0]["premise"], rows[0]["hypothesis"])
    assert features[0]["input_ids"].tolist() == pair["input_ids"]
    assert features[0]["token_type_ids"].tolist() == pair["token_type_ids"]
    assert features[1]["input_ids"].tolist() == TOKENIZER()(long, truncation=True, max_length=20)["input_ids"]
    assert task.report.truncated == 1


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least two classes"):
        opened("sequence-classification", lines(tmp_path / "a.jsonl", ROWS[1:]))
    with pytest.raises(DataError, match=r"a\.jsonl:2: a label was expected"):
        opened("sequence-classification", lines(tmp_path / "a.jsonl", [ROWS[0], {"text": "x"}]))


# ---------------------------------------------------------------------- token classification


def test_a_single_tag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least two tags"):
        opened("token-classification", conll(tmp_path / "a.txt", [(["x", "y"], ["O", "O"])]))


SENTENCE = ["Wangari", "Maathai", "alizaliwa", "Nyeri", ",", "nchini", "Kenya", "."]
TAGS = ["B-PER", "I-PER", "O", "B-LOC", "O", "O", "B-LOC", "O"]


def conll(path: Path, sentences: list[tuple[list[str], list[str]]]) -> Path:
    rows = ("".join(f"{word} {tag}\n" for word, tag in zip(*each, strict=True)) for each in sentences)
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


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
    # What continues a place is known, too, though no place here has two words.
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


# ---------------------------------------------------------------------- question answering


def windowed(path: Path, **options: Any) -> tuple[Task, list[Example]]:
    return opened("question-answering", path, **{"max_length": 40, "stride": 8, "max_question_length": 12, **options})


def test_windows_cover_the_context_and_the_answer(tmp_path: Path) -> None:
    task, examples = windowed(squad_file(tmp_path / "a.json"))
    assert task.config_overrides() == {"num_labels": 2, "no_answer_threshold": 0.0}
    features = task.features(examples[0])
    assert len(features) > 1
    covered = np.zeros(len(CONTEXT), bool)
    held = 0
    for feature in features:
        assert len(feature["input_ids"]) <= 40
        for start, end in feature["spans"]:
            covered[max(start, 0) : max(end, 0)] = True
        first, last = feature["start_positions"], feature["end_positions"]
        if first:
            held += 1
            assert CONTEXT[feature["spans"][first][0] : feature["spans"][last][1]] == "сорок минут"
        else:
            assert last == 0
    assert held >= 1
    assert all(covered[i] or CONTEXT[i].isspace() for i in range(len(CONTEXT)))
    assert [feature["start_positions"] for feature in task.features(examples[2])] == [0] * len(
        task.features(examples[2])
    )


def sure(task: Task, example: Example, start: int, end: int, null: float = 0.0) -> list[dict[str, np.ndarray]]:
    """What a model would give that is sure of the characters from `start` to `end`."""
    features = task.features(example)
    width = max(len(feature["input_ids"]) for feature in features)
    starts, ends = np.full((2, len(features), width), -5.0, np.float32)
    starts[:, 0] = ends[:, 0] = null / 2
    for row, feature in enumerate(features):
        starts[row, : len(feature["spans"])][feature["spans"][:, 0] == start] = 4.0
        ends[row, : len(feature["spans"])][feature["spans"][:, 1] == end] = 4.0
    return task.outputs(features, {"start_logits": starts, "end_logits": ends})


def test_the_predicted_answer_is_decoded(tmp_path: Path) -> None:
    task, examples = windowed(squad_file(tmp_path / "a.json"))
    at = CONTEXT.index("сорок минут")
    outputs = sure(task, examples[0], at, at + len("сорок минут"))
    found = task.decode(examples[0], outputs)
    assert (found["id"], found["answer"], found["start"], found["end"]) == ("q1", "сорок минут", at, at + 11)
    assert found["n_best"][0]["score"] > 0.99
    assert task.score([examples[0]], [outputs]) == {"exact_match": 1.0, "f1": 1.0}


def test_no_answer_is_given_where_its_score_is_higher(tmp_path: Path) -> None:
    task, examples = windowed(squad_file(tmp_path / "a.json"))
    unsure = sure(task, examples[2], 0, 3, null=20.0)
    assert task.decode(examples[2], unsure)["answer"] == ""
    assert task.decode(examples[2], unsure)["no_answer_score"] > 0.99
    never = get_task(
        "question-answering", TOKENIZER(), max_length=40, stride=8, max_question_length=12, no_answer_threshold=1e9
    )
    never.prepare(examples)
    assert never.decode(examples[2], unsure)["answer"] != ""
    later = get_task("question-answering", TOKENIZER(), max_length=40, stride=8, max_question_length=12)
    later.prepare(config=config(**task.config_overrides()))
    assert later.no_answer_threshold == 0.0
    scores = task.score([examples[2]], [unsure])
    assert scores["exact_match_no_answer"] == 1.0


def test_long_questions_are_truncated(tmp_path: Path) -> None:
    row = {"question": "warum " * 60, "context": "Darum.", "answers": [{"text": "Darum", "answer_start": 0}]}
    task, [example] = windowed(lines(tmp_path / "a.jsonl", [row]))
    [feature] = task.features(example)
    assert len(feature["input_ids"]) <= 40
    assert task.report.truncated == 1
    with pytest.raises(InputError, match="stride=30"):
        windowed(tmp_path / "a.jsonl", stride=30)


# ---------------------------------------------------------------------- multiple choice


@pytest.mark.parametrize(
    ("row", "first", "pairs", "label"),
    [
        (
            {
                "premise": "下雨了。",
                "choice1": "地湿了。",
                "choice2": "太阳出来了。",
                "question": "effect",
                "label": 0,
            },
            0,
            [
                ("下雨了。 What happened as a result?", "地湿了。"),
                ("下雨了。 What happened as a result?", "太阳出来了。"),
            ],
            0,
        ),
        (
            {
                "sent1": "Sie steht.",
                "sent2": "Dann",
                "ending0": "geht sie.",
                "ending1": "liegt sie.",
                "label": "1",
            },
            0,
            [("Sie steht.", "Dann geht sie."), ("Sie steht.", "Dann liegt sie.")],
            1,
        ),
        (
            {
                "flores_passage": "Mvua ilinyesha.",
                "question": "Nini kilitokea?",
                **{f"mc_answer{number}": f"jibu {number}" for number in range(1, 5)},
                "correct_answer_num": "4",
            },
            1,
            [("Mvua ilinyesha. Nini kilitokea?", f"jibu {number}") for number in range(1, 5)],
            3,
        ),
        (
            {"question": "2 + 2?", "choices": {"text": ["3", "4", "5"], "label": ["A", "B", "C"]}, "answer": "B"},
            0,
            [("2 + 2?", "3"), ("2 + 2?", "4"), ("2 + 2?", "5")],
            1,
        ),
    ],
    ids=["xcopa", "swag", "belebele", "arc"],
)
def test_choices_are_pairs(
    tmp_path: Path, row: dict[str, Any], first: int, pairs: list[tuple[str, str]], label: int
) -> None:
    task, [example] = opened("multiple-choice", lines(tmp_path / "a.jsonl", [row]), first_choice=first)
    [feature] = task.features(example)
    batch = task.collate([feature, feature])
    expected = TOKENIZER()([a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="np")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        np.testing.assert_array_equal(batch[name], np.stack([expected[name]] * 2))
    assert batch["labels"].tolist() == [label, label]
    logits = np.zeros(len(pairs))
    logits[label] = 3.0
    assert task.score([example], [[{"logits": logits}]]) == {"accuracy": 1.0}
    found = task.decode(example, [{"logits": logits}])
    assert (found["label"], found["choice"]) == (label + first, pairs[label][1])


# ---------------------------------------------------------------------- language models

POEM = (
    "Die Fähre fährt um acht.\n\nالعبّارة تغادر في الثامنة.\n渡轮八点出发。\n"
    + "Feri inaondoka saa mbili. " * 20
    + "\n"
)


@pytest.mark.parametrize("name", ["masked-lm", "causal-lm"])
def test_texts_fill_rows_completely(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(POEM, encoding="utf-8")
    task, examples = opened(name, path, max_length=24)
    texts = [line for line in POEM.split("\n") if line.strip()]
    whole = [index for text in texts for index in TOKENIZER()(text)["input_ids"]]
    joined = list(task.training_features(examples))
    assert [index for feature in joined for index in feature["input_ids"]] == whole
    assert {len(feature["input_ids"]) for feature in joined[:-1]} == {24}
    alone = [
        index for example in examples for feature in task.features(example) for index in feature["input_ids"][1:-1]
    ]
    assert alone == [index for text in texts for index in TOKENIZER()(text, add_special_tokens=False)["input_ids"]]
    apart = get_task(name, TOKENIZER(), max_length=24, join=False)
    assert len(list(apart.training_features(examples))) == sum(len(task.features(example)) for example in examples)


def test_masks_are_random_in_training_and_fixed_in_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(POEM, encoding="utf-8")
    task, examples = opened("masked-lm", path)
    features = [feature for example in examples for feature in task.features(example)]
    rng = np.random.default_rng(0)
    first, second = task.collate(features, rng), task.collate(features, rng)
    assert (first["labels"] != second["labels"]).any()
    standing = task.collate(features)
    # The same masks in whatever company a row comes.
    alone = task.collate(features[1:2])
    width = len(features[1]["input_ids"])
    np.testing.assert_array_equal(alone["input_ids"][0], standing["input_ids"][1, :width])
    masked = standing["labels"] != -100
    assert (standing["input_ids"][masked] != standing["labels"][masked]).any()
    assert not (masked & (standing["attention_mask"] == 0)).any()


def test_every_token_is_masked_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Die Fähre fährt um acht.\n", encoding="utf-8")
    task, [example] = opened("masked-lm", path, every_token=True)
    ids = TOKENIZER()("Die Fähre fährt um acht.")["input_ids"]
    batch = task.collate(task.features(example))
    assert len(batch["input_ids"]) == len(ids) - 2
    for row in range(len(ids) - 2):
        expected = list(ids)
        expected[row + 1] = TOKENIZER().mask_token_id
        assert batch["input_ids"][row].tolist() == expected
        assert batch["labels"][row].tolist() == [-100] * (row + 1) + [ids[row + 1]] + [-100] * (len(ids) - row - 2)


def test_tokens_begin_words_after_spaces_and_in_scripts_without_them() -> None:
    from rembert.tasks.definitions.masked_lm import _starts_word

    assert [_starts_word(piece) for piece in ("▁haus", "tür", "渡", "ー", "ไทย", "s", "▁")] == [
        True, False, True, True, True, False, True
    ]  # fmt: skip


def test_a_decoder_has_no_labels_on_padding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("eins\neins zwei drei\n")
    task, examples = opened("causal-lm", path)
    assert task.config_overrides() == {"is_decoder": True}
    batch = task.collate([feature for example in examples for feature in task.features(example)])
    real = batch["attention_mask"] == 1
    np.testing.assert_array_equal(batch["labels"][real], batch["input_ids"][real])
    assert (batch["labels"][~real] == -100).all()
