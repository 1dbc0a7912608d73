"""Commands and `from_pretrained` on damaged files; a program like `tests.bridge.fuzzing`, with families of its own.

python -m tests.cli.fuzzing FAMILY FIRST COUNT
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from rembert import RemBertConfig
from rembert.cli.main import main
from rembert.common.errors import RemBertError
from tests.bleurt.cases import make_variables, write_saved_model
from tests.bridge.fuzzing import Damage, damage_bundle, damage_bytes, damage_json, damage_safetensors, go_through
from tests.bridge.support import GOLDEN
from tests.frameworks import PT, TF, Framework, random_weights
from tests.training.runs import write_start

_MODEL = GOLDEN / "token_classification"
_ROWS = [{"id": str(n), "text": f"The train and the bus {n}", "label": "LABEL_1"} for n in range(4)]
_PAIRS = [{"candidate": f"a bird {n}", "references": ["a bird sings", "the bird"]} for n in range(4)]


def damage_any(chance: random.Random, directory: Path) -> None:
    """Change one of the files, by its structure if it has one."""
    path = chance.choice(sorted(path for path in directory.rglob("*") if path.is_file()))
    if path.name == "model.safetensors":
        damage_safetensors(chance, path)
    elif path.suffix == ".json":
        damage_json(chance, path)
    elif path.suffix == ".index":
        damage_bundle(chance, path)
    elif path.suffix == ".jsonl" and chance.random() < 0.6:
        lines = path.read_text().splitlines()
        scratch = path.with_name("scratch")
        scratch.write_text(lines[0])
        damage_json(chance, scratch)
        path.write_bytes(b"\n".join([scratch.read_bytes(), *map(str.encode, lines[1:])]))
        scratch.unlink()
    else:
        damage_bytes(chance, path)


def command(*arguments: object) -> str:
    """What became of a command, which must end with an exit code and one line."""
    return outcome_and_text(*arguments)[0]


def outcome_and_text(*arguments: object) -> tuple[str, str]:
    """What became of a command, and what it said."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = main(list(map(str, arguments)))
    except Exception as problem:
        return f"wrong: {type(problem).__name__}: {str(problem)[:200]!r}", said.getvalue()
    if code in (1, 2) and "Errno" in said.getvalue():
        return f"wrong: an error of the system: {said.getvalue()[-200:]!r}", said.getvalue()
    return {0: "ok", 1: "refused", 2: "refused"}.get(code, f"wrong: exit code {code}"), said.getvalue()


# ---------------------------------------------------------------------- families


def prepare_weights(directory: Path) -> None:
    """Weights and a configuration."""
    directory.mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(_MODEL / name, directory / name)


def loading(framework: Framework) -> Callable[[Path], str]:
    """`from_pretrained` of a framework."""

    def attempt(directory: Path) -> str:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                framework.model_class("token-classification").from_pretrained(directory)
        except RemBertError as problem:
            return "refused" if str(directory) in str(problem) else f"wrong: no file is named: {str(problem)[:200]!r}"
        except Exception as problem:
            return f"wrong: {type(problem).__name__}: {str(problem)[:200]!r}"
        return "ok"

    return attempt


def prepare_classifier(directory: Path) -> None:
    """A classifier with its tokenizer, and examples."""
    write_start(directory)
    config = RemBertConfig.from_pretrained(directory, num_labels=2)
    model = PT.build(config, "sequence-classification")
    PT.set_weights(model, random_weights(config, "sequence-classification", dtype="float32"))
    model.save_pretrained(directory)
    (directory / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _ROWS))


def prepare_metric(directory: Path) -> None:
    """A metric, and texts to score."""
    write_saved_model(directory / "metric", make_variables())
    (directory / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _PAIRS))


def attempt_predict(directory: Path) -> str:
    """`predict`."""
    data, output = directory / "data.jsonl", directory / "out.jsonl"
    return command("predict", "sequence-classification", "--model", directory, "--data", data, "--output", output)


def attempt_trim(directory: Path) -> str:
    """`trim`."""
    corpus = directory / "data.jsonl"
    return command("trim", directory, directory / "trimmed", "--corpus", corpus, "--force", "--quiet")


def attempt_verify(directory: Path) -> str:
    """`verify`."""
    return command("verify", _MODEL / "model.safetensors", directory, "--frameworks", "pt", "pt")


def attempt_score(directory: Path) -> str:
    """`score`."""
    data, output = directory / "data.jsonl", directory / "scores.jsonl"
    return command("score", "--model", directory / "metric", "--candidates", data, "--output", output, "--quiet")


Family = tuple[Callable[[Path], None], Damage, Callable[[Path], str]]
FAMILIES: dict[str, Family] = {
    "load-pt": (prepare_weights, damage_any, loading(PT)),
    "load-tf": (prepare_weights, damage_any, loading(TF)),
    "predict": (prepare_classifier, damage_any, attempt_predict),
    "trim": (prepare_classifier, damage_any, attempt_trim),
    "verify": (prepare_weights, damage_any, attempt_verify),
    "score": (prepare_metric, damage_any, attempt_score),
}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    go_through(*FAMILIES[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3]))
