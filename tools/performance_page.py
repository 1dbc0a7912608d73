"""The page of measurements, `docs/performance.md`: each benchmark rewrites its own section."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from rembert.common.files import write_text

# What matters to the speed of inference and training, as Linux names it.
FLAGS = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"),
    *("asimddp", "bf16", "i8mm", "sve"),
)


def processor() -> str:
    """The processor's name, and those of its instruction sets that matter here."""
    names = re.findall(r"model name\s*:\s*(.+)", _information())
    flags = ", ".join(_flags()) or "no instruction sets known"
    return f"{names[0] if names else platform.processor() or platform.machine()} ({flags})"


def kind() -> str:
    """The kind of processor by its widest vectors; each kind has sections of its own."""
    names = {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE"}
    return next((name for flag, name in names.items() if flag in _flags()), platform.machine())


def _information() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text() if info.exists() else ""


def _flags() -> list[str]:
    has = set(" ".join(re.findall(r"(?:flags|Features)\s*:\s*(.+)", _information())).split())
    return [flag for flag in FLAGS if flag in has]


def section(page: Path, name: str) -> str:
    """The text between the marks of this name; "" without marks."""
    _, _, rest = (page.read_text(encoding="utf-8") if page.exists() else "").partition(f"<!-- {name} -->\n")
    return rest.partition(f"<!-- end of {name} -->")[0]


def write_section(page: Path, name: str, title: str, text: str) -> None:
    """Put `text` between the marks of this name, or, without marks, under `title` at the end of the page."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    content = page.read_text(encoding="utf-8") if page.exists() else "# Performance\n"
    if start not in content:
        content = f"{content.rstrip()}\n\n## {title}\n\n{start}{end}"
    before, rest = content.split(start)
    write_text(page, f"{before}{start}{text.rstrip()}\n{end}{rest.split(end)[1]}")
