"""Progress: what is shown, where, and how often."""

from __future__ import annotations

import io
from typing import Any

import pytest

from rembert.common.progress import Progress, duration, silent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, *, say: Any = None, **options: Any) -> list[str]:
    """The lines of work on 1000 items, two in a second, of which 200 were done before."""
    now, lines = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with Progress("encode", lines.append if say is None else say, stream=stream, **options) as progress:
        progress.start(200)
        for item in progress.track(range(200, 1000)):
            now[0] += 0.5
            if item == 600:
                progress.note(loss=0.123456)
    return lines


def test_lines_tell_rate_and_time_left_and_grow_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _shown(monkeypatch, io.StringIO(), total=1000, unit="rows")
    assert lines[0] == "encode: 220 of 1,000 rows, 2/s, 6 min left"
    done = [int(line.split()[1]) for line in lines]
    assert done[1] - done[0] == 20, "ten seconds apart"
    assert 36 <= done[-1] - done[-2] <= 40, "a twentieth of 400 seconds apart"
    assert "loss" not in lines[0]
    assert lines[-1].endswith(" left, loss 0.1235")
    assert _shown(monkeypatch, io.StringIO(), unit="rows")[0] == "encode: 220 rows, 2/s"


def test_a_terminal_has_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    assert _shown(monkeypatch, stream, total=1000, unit="rows") == []
    shown = stream.getvalue()
    assert "#" in shown
    assert "\n" not in shown
    assert "encode: 1,000 of 1,000 rows, 2/s, 0 s left" in shown
    assert shown.endswith("\r\x1b[K"), "the bar is wiped"


def test_nothing_is_shown_to_those_who_want_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stream in (io.StringIO(), Terminal()):
        _shown(monkeypatch, stream, say=silent)
        assert stream.getvalue() == ""
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("seconds", "text"), [(4.2, "4 s"), (89, "89 s"), (300, "5 min"), (11_520, "3.2 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
