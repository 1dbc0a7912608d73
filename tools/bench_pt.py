"""How fast `rembert.pt` is beside transformers and other libraries, in one run, in processes that take turns.

    python tools/bench_pt.py [--only NAME ...] [--rounds 3] [--threads 2] [--write] [--tiny]

Each measurement runs in a process of its own; those of one group follow one another, `--rounds` times over, so that a
busy moment of the machine meets all of them. A process's time is the median of its calls after a first one; a group's
ratio is the median over the rounds, each against transformers in the same round. All of it takes about twenty minutes
on two cores.

Workload of the groups `inference`, `full` and `training`: four layers at full width, batch 16 x 128, lengths from 15
to 128, 798 real tokens of 2,048. `full` has no padding. `mlm`: two layers, batch 8 x 128, 250,300 tokens, 15% of the
tokens masked, peak memory beyond the model's own. `generation`: greedy, with the cache, 250,300 tokens. `released`: a
masked language model of the released size, 993 million parameters, one step, the peak of the whole process; it wants
16 GB. `trainer` and `pipeline` are transformers' own, with and without the plug-in, on the model and the lengths of
`training`, in batches of 16. The groups of `bench_pt_gpu.py` run where there is a GPU.

`--tiny` runs everything in seconds on models of no use, to try the tool itself; it does not write. With `--device cpu`
the measurements of a GPU are tried too.

`--write` puts the tables into docs/performance.md, into the sections of this kind of processor, and the plot beside
it; rows of groups that were not measured stay if they are of the same versions and machine. Needs `rembert[bench]`,
and accelerate for `trainer`; a row says which library is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_pt_gpu
import bench_pt_peers
import bench_pt_workloads
from bench_pt_common import SIZES, TINY
from performance_page import kind, processor, section, write_section

DOCS = Path(__file__).parent.parent / "docs"
GROUPS: dict[str, dict[str, str]] = {
    "inference": {
        "transformers": "transformers, float32, eager",
        "plain": "rembert.pt, float32",
        "optimized": "rembert.pt, `optimize_for_inference()`",
        "bfloat16": "rembert.pt, bfloat16, `optimize_for_inference()`",
        "float16": "rembert.pt, `quantize_dynamic('float16')`",
        "int8": "rembert.pt, `quantize_dynamic()`",
        **bench_pt_peers.PEERS,
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
    **bench_pt_gpu.GROUPS,
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
    **bench_pt_gpu.TITLES,
}
INSIDE = ("trainer", "pipeline")  # transformers' own machinery, with and without the plug-in: a table of their own
ROUNDS = {"mlm": 2, "released": 1}  # at most: these take long, and differ by far more than a busy moment makes up
HEAD = [
    "| measurement | time (smallest to largest) | rounds | against transformers | more |",
    "| --- | ---: | ---: | ---: | --- |",
]
Results = dict[str, list[dict[str, Any]]]  # of each group the rounds, of a round the measurements by name


def main() -> None:
    """Run the benchmark, print the table, write it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(GROUPS), default=list(GROUPS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--write", action="store_true", help="into docs/performance.md, with a plot")
    parser.add_argument("--tiny", action="store_true", help="models of no use, to try the tool itself")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of the GPU's measurements")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where `--write` writes")
    parser.add_argument("--child", nargs=3, metavar=("GROUP", "NAME", "DIRECTORY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny and args.write and args.docs == DOCS:
        parser.error("--tiny measures nothing of worth: with --write it needs another --docs")
    if args.device == "cpu" and not args.tiny:
        parser.error("--device cpu tries the code alone: it needs --tiny")
    import torch

    if args.child:
        torch.set_num_threads(args.threads)
        SIZES.update(TINY if args.tiny else {})
        print(json.dumps(measure(*args.child, args)))
        return
    has_device = args.device == "cpu" or torch.cuda.is_available()
    results: Results = {}
    with tempfile.TemporaryDirectory() as directory:
        for group in args.only:
            if has_device or group not in bench_pt_gpu.GROUPS:
                results[group] = [
                    {name: child(group, name, directory, args) for name in GROUPS[group]}
                    for _ in range(min(args.rounds, ROUNDS.get(group, args.rounds)))
                ]
    for is_inside, name in ((False, "bench_pt"), (True, "bench_pt inside")):
        own = {group: rounds for group, rounds in results.items() if (group in INSIDE) == is_inside}
        if own:
            publish(f"{name}, {kind()}", own, args, None if is_inside else f"performance_pt_{kind().lower()}.png")


def measure(group: str, name: str, directory: str, args: argparse.Namespace) -> dict[str, Any]:
    """What one process measures: seconds, and what else belongs to it."""
    import torch

    torch.manual_seed(0)
    if group in bench_pt_gpu.GROUPS:
        return bench_pt_gpu.gpu(group, name, args.device)
    if name in bench_pt_peers.PEERS:
        return bench_pt_peers.peer(name, Path(directory), args.threads)
    return bench_pt_workloads.measure(group, name, Path(directory))


def child(group: str, name: str, directory: str, args: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own; `{"problem": ...}` where it cannot be made here."""
    command = [sys.executable, __file__, "--threads", str(args.threads), "--device", args.device]
    command += [*(["--tiny"] if args.tiny else []), "--child", group, name, directory]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        problem = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
        missing = re.fullmatch("ModuleNotFoundError: No module named '(.+)'", problem)
        result = {"problem": f"{missing[1]} is not installed" if missing else problem}
    else:
        result = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{group} {name}: {result}", file=sys.stderr)
    return result


# ------------------------------------------------------------------ what is shown


def publish(name: str, results: Results, args: argparse.Namespace, picture: str | None) -> None:
    """Print the table of some groups; with `--write` put it into the page, beside the rows of other groups."""
    import torch
    import transformers

    title = f"PyTorch {torch.__version__}, transformers {transformers.__version__}, {args.threads} threads of "
    title += f"{processor()}."
    rows = {group: table_rows(group, rounds) for group, rounds in results.items()}
    print("\n".join([title, "", *HEAD, *(row for each in rows.values() for row in each)]))
    if not args.write:
        return
    page = args.docs / "performance.md"
    before = section(page, name)
    if before.startswith(title):  # otherwise of other versions, or another machine
        for group, start in TITLES.items():
            kept = [line for line in before.splitlines() if line.startswith(f"| {start}: ")]
            if kept and group not in rows:
                rows[group] = kept
    ordered = [row for group in TITLES for row in rows.get(group, [])]
    text = "\n".join([title, "", *HEAD, *ordered])
    if picture is not None and plot(ordered, args.docs / picture):
        text += f"\n\n![How many times as fast as transformers]({picture})"
    write_section(page, name, name, text)


def table_rows(group: str, rounds: list[dict[str, Any]]) -> list[str]:
    """A group's rows in Markdown."""
    rows = []
    for name, title in GROUPS[group].items():
        problem = next((each[name]["problem"] for each in rounds if "problem" in each[name]), None)
        seconds, ratio = middle(rounds, name, "seconds"), speed(rounds, name)
        shown = "" if not seconds else f"{seconds * 1e3:,.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"
        every = [each[name]["seconds"] * 1e3 for each in rounds if each[name].get("seconds")]
        if len(every) > 1:
            shown += f" ({min(every):,.1f} to {max(every):,.1f})"
        rows.append(
            f"| {TITLES[group]}: {title} | {shown} | {len(every) or ''} | {'' if ratio is None else f'{ratio:.2f} ×'} "
            f"| {problem or more(rounds, name)} |"
        )
    return rows


def middle(rounds: list[dict[str, Any]], name: str, key: str) -> float | None:
    """The median over the rounds of one number of one measurement."""
    numbers = [each[name][key] for each in rounds if each.get(name, {}).get(key) is not None]
    return statistics.median(numbers) if numbers else None


def speed(rounds: list[dict[str, Any]], name: str) -> float | None:
    """How many times as fast as transformers in the same round: the median over the rounds."""
    both = [each for each in rounds if all(each.get(one, {}).get("seconds") for one in ("transformers", name))]
    ratios = [each["transformers"]["seconds"] / each[name]["seconds"] for each in both]
    return statistics.median(ratios) if ratios else None


def more(rounds: list[dict[str, Any]], name: str) -> str:
    """Errors, memory, rates."""
    notes = sorted({each[name]["note"] for each in rounds if "note" in each[name]})
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
            products = middle(rounds, "matmul", "flops") or rate
            share = "" if name == "matmul" else f", {rate / products:.0%} of the products' rate"
            notes.append(f"{what} {rate / 1e12:.3g} TFLOP/s{share}")
    return ", ".join(notes)


def plot(rows: list[str], file: Path) -> bool:
    """A bar for every row that has a ratio: how many times as fast as transformers. False where none has."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    baselines = [f"{TITLES[group]}: {names['transformers']}" for group, names in GROUPS.items() if len(names) > 1]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    bars = [
        (label.replace("`", "").replace(": ", "\n"), float(ratio.removesuffix(" ×")))
        for label, _, _, ratio, _ in cells
        if ratio and label not in baselines
    ]
    if not bars:
        return False
    figure, axes = pyplot.subplots(figsize=(8, 0.55 * len(bars) + 1), layout="constrained")
    drawn = axes.barh([label for label, _ in bars][::-1], [ratio for _, ratio in bars][::-1], color="#4477aa")
    axes.bar_label(drawn, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as fast as transformers in the same round")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
    return True


if __name__ == "__main__":
    main()
