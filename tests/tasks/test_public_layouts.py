"""The layouts of public data sets as they are distributed, in files of invented examples.

Each loads without options, or with columns by number where a file has no names.
"""

# ruff: noqa: E501 (a line of a file is a line here)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rembert.tasks.examples import Answer, ChoiceExample, QuestionExample, TaggedExample, TextExample
from tests.tasks.test_file_kinds import write
from tests.tasks.test_layouts import task

MNLI = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2 label1 gold_label"
)
TABLES: dict[str, tuple[str, str, dict[str, str], tuple[Any, ...]]] = {
    # name of the file, its lines, columns by number, (text, text_pair, label) of the first example
    "GLUE CoLA": ("train.tsv", "gj04\t1\t\tShe sings.\ngj04\t0\t*\tSings she.\n", {"text": "4", "label": "2"},
                  ("She sings.", None, "1")),
    "GLUE SST-2": ("train.tsv", "sentence\tlabel\na fine day \t1\n", {}, ("a fine day ", None, "1")),
    "GLUE MRPC": ("train.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tIt rained.\tRain fell.\n", {},
                  ("It rained.", "Rain fell.", "1")),
    "GLUE QQP": ("train.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n3\t5\t6\tWhen?\tAt what time?\t1\n", {},
                 ("When?", "At what time?", "1")),
    "GLUE STS-B": ("train.tsv", "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
                   "0\tmain\ta\t2012\t1\tnone\tnone\tA dog.\tA cat.\t1.250\n", {}, ("A dog.", "A cat.", "1.250")),
    "GLUE MNLI": ("train.tsv", MNLI.replace(" ", "\t") + "\n0\t1\t1n\tfiction\t(\t(\t(\t(\tIt rains.\tIt is wet.\tentailment\tneutral\n",
                  {}, ("It rains.", "It is wet.", "neutral")),
    "GLUE QNLI": ("train.tsv", "index\tquestion\tsentence\tlabel\n0\tWhere?\tIn Wien.\tentailment\n", {},
                  ("Where?", "In Wien.", "entailment")),
    "GLUE RTE, WNLI": ("train.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n", {},
                       ("A.", "B.", "not_entailment")),
    "XGLUE XNLI": ("xnli.dev.jsonl", '{"premise": "A.", "hypothesis": "B.", "label": 2}', {}, ("A.", "B.", 2)),
    "XGLUE PAWS-X": ("a.jsonl", '{"sentence1": "A.", "sentence2": "B.", "label": 0}', {}, ("A.", "B.", 0)),
    "XGLUE QADSM": ("a.jsonl", '{"query": "shoes", "ad_title": "Boots", "ad_description": "x", "relevance_label": 1}', {},
                    ("shoes", "Boots", 1)),
    "XGLUE WPR": ("a.jsonl", '{"query": "q", "web_page_title": "T", "web_page_snippet": "s", "relavance_label": 4}', {},
                  ("q", "T", 4)),
    "XGLUE QAM": ("a.jsonl", '{"question": "Who?", "answer": "Ada.", "label": 1}', {}, ("Who?", "Ada.", 1)),
    "XGLUE NC": ("a.jsonl", '{"news_title": "Rain", "news_body": "It rained.", "news_category": "weather"}', {},
                 ("Rain", "It rained.", "weather")),
    "XGLUE NC, as a file": ("xglue.nc.en.tsv", "Rain\tIt rained.\tweather\n", {"text": "1", "text_pair": "2", "label": "3"},
                            ("Rain", "It rained.", "weather")),
    "AfriSenti": ("hau_train.tsv", "ID\ttweet\tlabel\nha_1\tIna kwana\tpositive\n", {}, ("Ina kwana", None, "positive")),
    "AfriSenti, newer": ("hau.tsv", "tweet\tlabel\n@user sannu\tneutral\n", {}, ("@user sannu", None, "neutral")),
    "SIB-200": ("train.tsv", "index_id\tcategory\ttext\n1\ttravel\tThe ferry.\n", {}, ("The ferry.", None, "travel")),
}  # fmt: skip


@pytest.mark.parametrize("layout", TABLES)
@pytest.mark.filterwarnings("ignore")  # of further texts
def test_texts_and_pairs(layout: str, tmp_path: Path) -> None:
    name, content, columns, expected = TABLES[layout]
    example = next(iter(task("sequence-classification", columns=columns).read(write(tmp_path / name, content))))
    assert isinstance(example, TextExample)
    assert (example.text, example.text_pair, example.label) == expected


UD = (
    "# sent_id = 1\n# text = Zum Haus\n1-2\tZum\t_\t_\t_\t_\t_\t_\t_\t_\n1\tZu\tzu\tADP\tAPPR\t_\t3\tcase\t_\t_\n"
    "2\tdem\tder\tDET\tART\t_\t3\tdet\t_\t_\n3\tHaus\tHaus\tNOUN\tNN\t_\t0\troot\t_\t_\n\n"
)
SENTENCES: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "CoNLL-2003": ("eng.train", "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\n", ("EU", "rejects"), ("B-ORG", "O")),
    "CoNLL-2002": ("esp.train", "Wien NP B-LOC\n( Fpa O\n\n", ("Wien", "("), ("B-LOC", "O")),
    "CoNLL-2002, Dutch": ("ned.train", "-DOCSTART- -DOCSTART- O\nDe Art O\nWenen N B-LOC\n\n", ("De", "Wenen"), ("O", "B-LOC")),
    "Universal Dependencies": ("de_gsd-ud-dev.conllu", UD, ("Zu", "dem", "Haus"), ("ADP", "DET", "NOUN")),
    "WikiANN": ("train", "en:Ada\tB-PER\nen:sang\tO\n\n", ("Ada", "sang"), ("B-PER", "O")),
    "MasakhaNER": ("train.txt", "Bùkọ́lá B-PER\n, O\n\n# O\n", ("Bùkọ́lá", ","), ("B-PER", "O")),
    "XGLUE NER": ("de.dev", "Ada B-PER\nsang O\n\n", ("Ada", "sang"), ("B-PER", "O")),
    "datasets": ("a.jsonl", '{"tokens": ["Ada", "sang"], "ner_tags": ["B-PER", "O"]}', ("Ada", "sang"), ("B-PER", "O")),
    "XGLUE of datasets": ("a.jsonl", '{"words": ["Ada", "sang"], "pos": ["PROPN", "VERB"]}', ("Ada", "sang"), ("PROPN", "VERB")),
}  # fmt: skip


@pytest.mark.parametrize("layout", SENTENCES)
def test_tagged_sentences(layout: str, tmp_path: Path) -> None:
    name, content, words, tags = SENTENCES[layout]
    example = next(iter(task("token-classification").read(write(tmp_path / name, content))))
    assert isinstance(example, TaggedExample)
    assert (example.words, example.tags) == (words, tags)


CONTEXT = "Ada wrote it in 1843."
NO_ANSWER = {"id": "1", "question": "Who?", "answers": [], "is_impossible": True, "plausible_answers": [{"text": "Ada", "answer_start": 0}]}  # fmt: skip
ANSWERED = {"id": "1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]}


@pytest.mark.parametrize(
    ("name", "question", "answers"),
    [
        ("train-v1.1.json", ANSWERED, (Answer("Ada", 0),)),  # SQuAD 1.1, XQuAD, MLQA
        ("dev-v2.0.json", NO_ANSWER, ()),  # SQuAD 2.0
        ("tydiqa-goldp-v1.1-dev.json", {**ANSWERED, "id": "english-1"}, (Answer("Ada", 0),)),
    ],
)
def test_questions(name: str, question: dict[str, Any], answers: tuple[Answer, ...], tmp_path: Path) -> None:
    paragraphs = [{"context": CONTEXT, "qas": [question]}]
    content = json.dumps({"version": "1", "data": [{"title": "Ada", "paragraphs": paragraphs}]})
    [example] = task("question-answering").read(write(tmp_path / name, content))
    assert isinstance(example, QuestionExample)
    assert (example.id, example.question, example.context, example.answers) == (
        question["id"], "Who?", CONTEXT, answers,
    )  # fmt: skip


def test_questions_of_tydiqa_and_squad_in_rows(tmp_path: Path) -> None:
    row = {"id": "e-1", "title": "Ada", "context": CONTEXT, "question": "Who?", "answers": {"text": ["Ada"], "answer_start": [0]}}  # fmt: skip
    [example] = task("question-answering").read(write(tmp_path / "a.jsonl", json.dumps(row)))
    assert isinstance(example, QuestionExample)
    assert example.answers == (Answer("Ada", 0),)


def test_choices_of_xcopa_and_copa(tmp_path: Path) -> None:
    row = {"premise": "It rained.", "choice1": "I got wet.", "choice2": "I slept.", "question": "effect", "label": 0}
    [example] = task("multiple-choice").read(write(tmp_path / "val.et.jsonl", json.dumps(row)))
    assert isinstance(example, ChoiceExample)
    assert (example.choices, example.label) == (("I got wet.", "I slept."), 0)
