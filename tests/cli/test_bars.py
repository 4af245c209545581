"""What the command line shows while it works."""

import pytest

from caloforge.cli import bars


@pytest.mark.parametrize(("seconds", "lines"), [(1.0, 0), (15.0, 1), (70.0, 4)])
def test_without_a_terminal_there_is_a_line_a_minute_and_the_speed(monkeypatch, capsys, seconds, lines):
    clock = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: clock[0])
    with bars.counting("sample", 300) as count:
        for done in (100, 200, 300):
            clock[0] += seconds
            count(done)
    err = capsys.readouterr().err
    assert err.count("\n") == lines
    if lines:
        assert (
            err.splitlines()[-1] == f"sample: 300 events in {3 * seconds:.0f} s, {100 / seconds:.3g} a second"
        )
    if lines > 1:
        assert (
            err.splitlines()[0]
            == f"sample: 100 of 300 events in {seconds:.0f} s, {100 / seconds:.3g} a second"
        )
