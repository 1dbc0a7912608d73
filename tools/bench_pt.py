"""How fast `rembert.pt` is beside transformers, in one run, in processes that take turns.

    python tools/bench_pt.py [--only NAME ...] [--rounds 3] [--threads 2] [--write] [--tiny]

Each measurement runs in a process of its own; those of one group follow one another, `--rounds` times over, so that a
busy moment of the machine meets all of them. A process's time is the median of its calls after a first one; a group's
ratio is the median over the rounds, each against transformers in the same round. All of it takes about ten minutes on
two cores.

Workload of the groups `inference`, `full` and `training`: four layers at full width, batch 16 x 128, lengths from 15
to 128, 798 real tokens of 2,048. `full` has no padding. `mlm`: two layers, batch 8 x 128, 250,300 tokens, 15% of the
tokens masked, peak memory beyond the model's own. `generation`: greedy, with the cache, 250,300 tokens. `released`: a
masked language model of the released size, 993 million parameters, one step, the peak of the whole process; it wants
16 GB. `gpu` runs where there is one. `trainer` and `pipeline` are transformers' own, with and without the plug-in,
on the model and the lengths of `training`, in batches of 16.

`--tiny` runs everything in seconds on models of no use, to try the tool itself; it does not write.

`--write` puts the tables into docs/performance.md, into the sections of this kind of processor, and the plot beside
it. Needs `rembert[bench]`, and accelerate for `trainer`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from memory import Peak, used_memory

DOCS = Path(__file__).parent.parent / "docs"
LENGTHS = (53, 128, 26, 79, 15, 38, 60, 28, 75, 20, 58, 29, 73, 26, 54, 36)
WIDTH, BUCKETS, VOCABULARY = 128, 4, 32000
GROUPS: dict[str, dict[str, str]] = {
    "inference": {
        "transformers": "transformers, float32, eager",
        "plain": "rembert.pt, float32",
        "optimized": "rembert.pt, `optimize_for_inference()`",
        "onnxruntime": "ONNX Runtime, four length-sorted buckets",
        "exported": "ONNX Runtime, what `export_onnx` writes, one batch",
        "bfloat16": "rembert.pt, bfloat16, `optimize_for_inference()`",
        "float16": "rembert.pt, `quantize_dynamic('float16')`",
        "int8": "rembert.pt, `quantize_dynamic()`",
    },
    "full": {"transformers": "transformers", "plain": "rembert.pt"},
    "training": {"transformers": "transformers", "plain": "rembert.pt"},
    "mlm": {"transformers": "transformers", "plain": "rembert.pt"},
    "generation": {
        "transformers": "transformers",
        "plain": "rembert.pt",
        "float16": "rembert.pt, `quantize_dynamic('float16')`",
        "int8": "rembert.pt, `quantize_dynamic()`",
    },
    "trainer": {"transformers": "transformers alone", "plug-in": "`import rembert.transformers`"},
    "pipeline": {"transformers": "transformers alone", "plug-in": "`import rembert.transformers`"},
    "released": {"plain": "rembert.pt"},
    "gpu": {"matmul": "matrix products", "transformers": "transformers, mixed lengths", "plain": "rembert.pt"},
}
TITLES = {
    "inference": "Inference, mixed lengths",
    "full": "Inference, no padding",
    "training": "Fine-tuning step, mixed lengths (AdamW)",
    "mlm": "Masked language model step (SGD)",
    "generation": "Greedy generation, a token",
    "trainer": "Step of transformers' Trainer, mixed lengths (AdamW)",
    "pipeline": "transformers' text classification pipeline, mixed lengths",
    "released": "Masked language model step (SGD), released size",
    "gpu": "GPU",
}
INSIDE = ("trainer", "pipeline")  # transformers' own machinery, with and without the plug-in: a table of their own
ROUNDS = {"mlm": 2, "released": 1}  # at most: these take long, and differ by far more than a busy moment makes up
ENOUGH = 4.0  # seconds of calls after which a process makes no more
TINY = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "input_embedding_size": 32,
    "output_embedding_size": 48,
    "num_hidden_layers": 1,
    "vocab_size": 2000,
}


def main() -> None:
    """Run the benchmark, print the table, write it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(GROUPS), default=list(GROUPS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--write", action="store_true", help="into docs/performance.md, with a plot")
    parser.add_argument("--tiny", action="store_true", help="models of no use, to try the tool itself")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where `--write` writes")
    parser.add_argument("--child", nargs=3, metavar=("GROUP", "NAME", "DIRECTORY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny and args.write and args.docs == DOCS:
        parser.error("--tiny measures nothing of worth: with --write it needs another --docs")
    if args.child:
        import torch

        torch.set_num_threads(args.threads)
        group, name, directory = args.child
        global SIZES  # of this process alone
        SIZES = TINY if args.tiny else {}
        print(json.dumps(measure(group, name, Path(directory), args.threads)))
        return
    import torch

    groups = [group for group in args.only if group != "gpu" or torch.cuda.is_available()]
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for group in groups:
            results[group] = [
                {name: child(group, name, directory, args) for name in GROUPS[group]}
                for _ in range(min(args.rounds, ROUNDS.get(group, args.rounds)))
            ]
    inside = {group: rounds for group, rounds in results.items() if group in INSIDE}
    alone = {group: rounds for group, rounds in results.items() if group not in INSIDE}
    print("\n".join(table(each, args) for each in (alone, inside) if each))
    if args.write:
        from performance_page import kind, write_section

        page = args.docs / "performance.md"
        if alone:
            file = args.docs / f"performance_pt_{kind().lower()}.png"
            picture = f"\n![How many times as fast as transformers]({file.name})\n"
            write_section(page, f"bench_pt, {kind()}", f"PyTorch, {kind()}", table(alone, args) + picture)
            plot(alone, file)
        if inside:
            write_section(page, f"bench_pt inside, {kind()}", f"Inside transformers, {kind()}", table(inside, args))


def child(group: str, name: str, directory: str, args: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own; `{"problem": ...}` where it cannot be made here."""
    command = [sys.executable, __file__, "--threads", str(args.threads), "--child", group, name, directory]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    command += ["--tiny"] if args.tiny else []
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        problem = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
        print(f"{group} {name}: {problem}", file=sys.stderr)
        return {"problem": problem}
    result = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{group} {name}: {result}", file=sys.stderr)
    return result


# ------------------------------------------------------------------ one measurement

SIZES: dict[str, int] = {}  # that take the place of the full ones


def measure(group: str, name: str, directory: Path, threads: int) -> dict[str, Any]:
    """What one process measures: seconds, and what else belongs to it."""
    import torch

    torch.manual_seed(0)
    if group == "inference" and name in ("onnxruntime", "exported"):
        return {"onnxruntime": onnxruntime, "exported": exported}[name](directory, threads)
    if group in ("inference", "full"):
        return inference(name, full=group == "full")
    if group == "trainer":
        return trainer(name, directory)
    others = {"training": training, "mlm": masked_lm, "generation": generation, "pipeline": pipeline}
    others |= {"released": released, "gpu": gpu}
    return others[group](name)


def model_of(name: str, head: str, **settings: Any) -> Any:
    """A model of transformers or of rembert, with random weights."""
    if name == "transformers":
        import transformers as library
    else:
        import rembert.pt as library
    config = library.RemBertConfig(**{"num_hidden_layers": 4, "vocab_size": VOCABULARY, **settings, **SIZES})
    return getattr(library, f"RemBert{head}")(config)


def mixed(full: bool = False) -> dict[str, Any]:
    """The batch of mixed lengths, or one of the same size without padding."""
    import torch

    torch.manual_seed(0)  # whatever the model's initialisation drew
    lengths = torch.full((len(LENGTHS), 1), WIDTH) if full else torch.tensor(LENGTHS)[:, None]
    mask = (torch.arange(WIDTH) < lengths).long()
    return {"input_ids": tokens(*mask.shape) * mask, "attention_mask": mask}


def tokens(*shape: int) -> Any:
    import torch

    return torch.randint(5, SIZES.get("vocab_size", VOCABULARY), shape)


def timed(call: Callable[[], Any], calls: int = 5) -> float:
    """Seconds of a call: the median of several, or of fewer long ones, after a first one that does not count."""
    call()
    seconds: list[float] = []
    while len(seconds) < calls and sum(seconds) < ENOUGH:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def inference(name: str, full: bool) -> dict[str, Any]:
    import torch

    model, batch = model_of(name, "Model").eval(), mixed(full)
    result: dict[str, Any] = {}
    with torch.inference_mode():
        exact = model(**batch).last_hidden_state
        if name == "bfloat16":
            model = model.bfloat16()
        if name in ("optimized", "bfloat16"):
            model.optimize_for_inference()
        if name in ("int8", "float16"):
            model.quantize_dynamic(name)
        if name in ("optimized", "bfloat16", "int8", "float16"):
            real = batch["attention_mask"].bool()
            difference = (model(**batch).last_hidden_state.float() - exact)[real]
            result["error"] = float(difference.norm() / exact[real].norm())
        result["seconds"] = timed(lambda: model(**batch))
    return result


def onnxruntime(directory: Path, threads: int) -> dict[str, Any]:
    """transformers' model in ONNX Runtime, the batch cut into buckets of like lengths."""
    import numpy
    import torch

    path = directory / "transformers.onnx"
    if not path.exists():
        export_onnx(path)
    session = onnx_session(path, threads)
    batch = {key: tensor.numpy() for key, tensor in mixed().items()}
    rows = numpy.array_split(numpy.argsort(LENGTHS), BUCKETS)
    buckets = [{key: array[own, : max(LENGTHS[i] for i in own)] for key, array in batch.items()} for own in rows]
    torch.set_num_threads(1)
    return {"seconds": timed(lambda: [session.run(None, bucket) for bucket in buckets])}


def exported(directory: Path, threads: int) -> dict[str, Any]:
    """This library's own export, which removes padding in its graph."""
    from rembert.pt import exporting

    path, batch = directory / "exported", mixed()
    if not path.exists():
        exporting.export_onnx(model_of("plain", "Model"), path)
    session = onnx_session(path / "model.onnx", threads)
    inputs = {key: tensor.numpy() for key, tensor in batch.items()}
    inputs["token_type_ids"] = 0 * inputs["input_ids"]
    return {"seconds": timed(lambda: session.run(["last_hidden_state"], inputs))}


def onnx_session(path: Path, threads: int) -> Any:
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def export_onnx(path: Path) -> None:
    import torch

    class LastState(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model_of("transformers", "Model").eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    batch, sequence = torch.export.Dim("batch"), torch.export.Dim("sequence", max=512)
    torch.onnx.export(
        LastState(),
        tuple(mixed().values()),
        path,
        input_names=["input_ids", "attention_mask"],
        dynamic_shapes=({0: batch, 1: sequence}, {0: batch, 1: sequence}),
        dynamo=True,
        verbose=False,
    )


def training(name: str) -> dict[str, Any]:
    import torch

    model = model_of(name, "ForSequenceClassification", num_labels=3).train()
    batch = {**mixed(), "labels": torch.arange(len(LENGTHS)) % 3}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"seconds": timed(step, 3)}


def inside_transformers(name: str) -> Any:
    """A classifier of transformers' Auto class, of the plug-in if it is imported."""
    import transformers

    if name == "plug-in":
        import rembert.transformers  # noqa: F401
    settings = {"num_hidden_layers": 4, "vocab_size": VOCABULARY, "num_labels": 3, **SIZES}
    return transformers.AutoModelForSequenceClassification.from_config(transformers.RemBertConfig(**settings))


def trainer(name: str, directory: Path) -> dict[str, Any]:
    """Seconds of a training step of transformers' Trainer: the median of those after the first."""
    import torch
    import transformers

    starts: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            starts.append(time.perf_counter())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            starts.append(time.perf_counter())

    rows = [{"input_ids": tokens(length), "labels": number % 3} for number, length in enumerate(LENGTHS)]

    def padded(examples: list[dict[str, Any]]) -> dict[str, Any]:
        ids = torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in examples], batch_first=True)
        labels = torch.tensor([row["labels"] for row in examples])
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}

    size = len(LENGTHS)
    arguments = transformers.TrainingArguments(
        str(directory / "out"), max_steps=3, per_device_train_batch_size=size, learning_rate=1e-5, use_cpu=True,
        report_to="none", disable_tqdm=True, save_strategy="no", logging_strategy="no",
    )  # fmt: skip
    transformers.Trainer(inside_transformers(name), arguments, padded, train_dataset=rows, callbacks=[Clock()]).train()
    return {"seconds": statistics.median(end - start for start, end in pairwise(starts[1:]))}


def pipeline(name: str) -> dict[str, Any]:
    """Seconds of a call of the pipeline with 16 texts of the mixed lengths, tokenized by the same tokenizer."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{number}": number for number in range(1, SIZES.get("vocab_size", VOCABULARY))}
    backend = Tokenizer(models.WordLevel({"[PAD]": 0, **words}, unk_token="[PAD]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    texts = [" ".join(f"w{number}" for number in tokens(length).tolist()) for length in LENGTHS]
    model = inside_transformers(name).eval()
    classify = transformers.pipeline(
        "text-classification", model=model, tokenizer=tokenizer, device="cpu", batch_size=len(texts)
    )
    return {"seconds": timed(lambda: classify(texts))}


def masked_lm(name: str) -> dict[str, Any]:
    step = masked_lm_step(model_of(name, "ForMaskedLM", num_hidden_layers=2, vocab_size=250300))
    own = used_memory("VmRSS")
    with Peak("VmRSS") as peak:
        seconds = timed(step, 2)
    return {"seconds": seconds, "bytes": peak.highest - own}


def masked_lm_step(model: Any) -> Callable[[], None]:
    """A training step on half of the batch of mixed lengths."""
    import torch

    model.train()
    batch = {key: tensor[:8] for key, tensor in mixed().items()}
    chosen = (torch.rand(batch["input_ids"].shape) < 0.15) & batch["attention_mask"].bool()
    batch["labels"] = torch.where(chosen, batch["input_ids"], -100)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def released(name: str) -> dict[str, Any]:
    """A step of the released size; the highest memory of the process, the model and its making included."""
    with Peak("VmRSS") as peak:
        step = masked_lm_step(model_of(name, "ForMaskedLM", num_hidden_layers=32, vocab_size=250300))
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak": peak.highest}


def generation(name: str) -> dict[str, Any]:
    """Seconds a token, over 32 tokens after a prompt of 32 and of 352."""
    import torch

    model = model_of(name, "ForCausalLM", is_decoder=True, vocab_size=250300).eval()
    if name in ("int8", "float16"):
        model.quantize_dynamic(name)
    result: dict[str, Any] = {}
    for prompt in (32, 352):
        ids = tokens(1, prompt)

        def seconds(tokens: int, ids: Any = ids) -> float:
            mask = torch.ones_like(ids)
            arguments = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": None, "attention_mask": mask}
            with torch.inference_mode():
                return timed(lambda: model.generate(ids, **arguments), 3)

        result[f"after_{prompt}"] = (seconds(33) - seconds(1)) / 32
    result["seconds"] = result["after_32"]
    return result


def gpu(name: str) -> dict[str, Any]:
    """bfloat16 on a GPU: the released depth at 512 tokens, forward and a training step, and mixed lengths."""
    import torch

    def seconds(call: Callable[[], Any]) -> float:
        def synchronized() -> None:
            call()
            torch.cuda.synchronize()

        return timed(synchronized, 10)

    result: dict[str, Any] = {}
    with torch.device("cuda"):
        if name == "matmul":
            states = torch.randn(64 * 512, 1152, dtype=torch.bfloat16)
            weight = torch.randn(4608, 1152, dtype=torch.bfloat16)
            flops = 2 * states.shape[0] * weight.numel()
            return {"flops": flops / seconds(lambda: states @ weight.T), "seconds": 0.0}
        # Before the model, whose initialisation draws as it likes: the same batch for both.
        ids, lengths = tokens(64, 512), torch.randint(16, 513, (64, 1))
        labels = torch.zeros(64, dtype=torch.long)
        model = model_of(name, "ForSequenceClassification", num_hidden_layers=32).bfloat16()
        mask = (torch.arange(512) < lengths).long()
        # Products with the weights, and scores and contexts: 2 FLOP for each weight and token, 4 × length × width.
        per_token = 2 * 32 * (4 * 1152**2 + 2 * 1152 * 4608) + 32 * 4 * 512 * 1152
        with torch.inference_mode():
            model.eval()
            result["seconds"] = seconds(lambda: model(ids, attention_mask=mask))
            if name == "plain":
                result["flops"] = ids.numel() * per_token / seconds(lambda: model(ids))
        if name == "plain":
            model.train()
            step = seconds(lambda: model(ids, labels=labels).loss.backward())
            result["training_flops"] = 3 * ids.numel() * per_token / step
    return result


# ------------------------------------------------------------------ what is shown


def middle(rounds: list[dict[str, Any]], name: str, key: str) -> float | None:
    """The median over the rounds of one number of one measurement."""
    numbers = [each[name][key] for each in rounds if each.get(name, {}).get(key) is not None]
    return statistics.median(numbers) if numbers else None


def speed(rounds: list[dict[str, Any]], name: str) -> float | None:
    """How many times as fast as transformers in the same round: the median over the rounds."""
    both = [each for each in rounds if all(each.get(one, {}).get("seconds") for one in ("transformers", name))]
    ratios = [each["transformers"]["seconds"] / each[name]["seconds"] for each in both]
    return statistics.median(ratios) if ratios else None


def table(results: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> str:
    """The results in Markdown."""
    import torch
    import transformers
    from performance_page import processor

    lines = [
        f"PyTorch {torch.__version__}, transformers {transformers.__version__}, {args.threads} threads of "
        f"{processor()}, {args.rounds} rounds.",
        "",
        "| measurement | time (smallest to largest) | against transformers | more |",
        "| --- | ---: | ---: | --- |",
    ]
    for group, rounds in results.items():
        for name, title in GROUPS[group].items():
            problem = next((each[name]["problem"] for each in rounds if "problem" in each[name]), None)
            seconds, ratio = middle(rounds, name, "seconds"), speed(rounds, name)
            shown = "" if not seconds else f"{seconds * 1e3:,.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"
            every = [each[name]["seconds"] * 1e3 for each in rounds if each[name].get("seconds")]
            if len(every) > 1:
                shown += f" ({min(every):,.1f} to {max(every):,.1f})"
            lines.append(
                f"| {TITLES[group]}: {title} | {shown} | {'' if ratio is None else f'{ratio:.2f} ×'} | "
                f"{problem or more(rounds, name)} |"
            )
    return "\n".join(lines) + "\n"


def more(rounds: list[dict[str, Any]], name: str) -> str:
    """Errors, memory, rates."""
    notes = []
    if (error := middle(rounds, name, "error")) is not None:
        notes.append(f"error {error:.1e}")
    if (size := middle(rounds, name, "bytes")) is not None:
        notes.append(f"{size / 1e9:.2f} GB over the model's own")
    if (size := middle(rounds, name, "peak")) is not None:
        notes.append(f"{size / 1e9:.2f} GB in all")
    if (late := middle(rounds, name, "after_352")) is not None:
        notes.append(f"{late * 1e3:.1f} ms after 352 tokens")
    for key, what in (("flops", "forward"), ("training_flops", "training step")):
        if (rate := middle(rounds, name, key)) is not None:
            notes.append(f"{what} {rate / 1e12:.0f} TFLOP/s")
    return ", ".join(notes)


def plot(results: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """A bar for every measurement: how many times as fast as transformers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    bars = [
        (f"{TITLES[group]}\n{title.replace('`', '')}", ratio)
        for group, rounds in results.items()
        for name, title in GROUPS[group].items()
        if name != "transformers" and (ratio := speed(rounds, name)) is not None
    ]
    if not bars:  # nothing that transformers was measured beside
        return
    figure, axes = pyplot.subplots(figsize=(8, 0.55 * len(bars) + 1), layout="constrained")
    drawn = axes.barh([label for label, _ in bars][::-1], [ratio for _, ratio in bars][::-1], color="#4477aa")
    axes.bar_label(drawn, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as fast as transformers in the same round")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
