"""`rembert.transformers.Trainer` with the classes of `rembert.pt`, as transformers' Trainer is with its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import rembert.pt  # noqa: E402
from rembert.common.parameters import HEADS  # noqa: E402
from rembert.transformers import Trainer  # noqa: E402
from tests.frameworks import PT, small_config  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENIZER = rembert.pt.RemBertTokenizer.from_pretrained(Path(__file__).parents[1] / "fixtures" / "tokenizer")
CONFIG = small_config(vocab_size=len(TOKENIZER), max_position_embeddings=40, num_labels=4)
TEXTS = ["The train leaves at seven.", "Der Zug fährt um sieben.", "No.", "¿Qué hora es, por favor?"]


def _arguments(directory: Path) -> Any:
    settings = {"max_steps": 1, "save_steps": 1, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    return transformers.TrainingArguments(output_dir=str(directory), **settings)


@pytest.mark.parametrize("head", ["sequence-classification", pytest.param("masked-lm", marks=pytest.mark.slow)])
def test_checkpoints_load_by_themselves(head: str, tmp_path: Path) -> None:
    """The rows have different lengths, and no collator is given for the first head."""
    PT.build(CONFIG, "model").save_pretrained(tmp_path / "in")
    pooler = rembert.pt.RemBertModel.from_pretrained(tmp_path / "in").pooler.dense.weight
    model = PT.load(tmp_path / "in", head, num_labels=4)
    rows = [{**TOKENIZER(text), "labels": number} for number, text in enumerate(TEXTS)]
    collator = None
    if head == "masked-lm":
        rows = [TOKENIZER(text) for text in TEXTS]
        collator = transformers.DataCollatorForLanguageModeling(TOKENIZER)
    trainer = Trainer(model, _arguments(tmp_path / "out"), collator, train_dataset=rows, processing_class=TOKENIZER)
    trainer.train()
    loaded = PT.load(tmp_path / "out" / "checkpoint-1", head)
    assert loaded.config.architectures == [HEADS[head].architecture]
    assert loaded.config.num_labels == 4
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    if head == "masked-lm":  # which does not use the pooler of its checkpoint, and keeps it
        again = rembert.pt.RemBertModel.from_pretrained(tmp_path / "out" / "checkpoint-1")
        assert torch.equal(again.pooler.dense.weight, pooler)
    resumed = Trainer(loaded, _arguments(tmp_path / "out"), collator, train_dataset=rows, processing_class=TOKENIZER)
    resumed.args.max_steps = 2
    assert resumed.train(resume_from_checkpoint=True).global_step == 2
