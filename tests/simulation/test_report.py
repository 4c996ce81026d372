"""The report of scripts/simulate: means and worst, the table in the documentation, and the program."""

from collections import Counter

import pytest

from simulation import report
from simulation.run import Tally


def tally(**changes):
    return Tally(**{"wanted": 1000, "optimum": 1000, "served": 990, "attempts": 1089, **changes})


MISSING, LIMIT = ("account1", "a", "model missing", 0), ("account1", "a", "session limit", 0)


def test_mean_and_worst():
    """A cell is the mean over the runs and the worst of them, which for goodput is the lowest."""
    runs = [
        tally(refusals=Counter({"session limit": 4}), by_window=Counter({LIMIT: 2, MISSING: 4}), switches=99),
        tally(served=970, lost=Counter({"too late": 30})),
    ]
    assert report.table({"hybrid": runs}) == [
        ["strategy", "goodput", "wasted", "in a window", "model missing", "switches", "attempts"],
        ["hybrid", "0.980 (0.970)", "2.0 (4.0)", "1.00 (2.00)", "2.0 (4.0)", "5.0 (10.0)", "1.11 (1.12)"],
    ]
    assert report.verdicts(runs) == [
        "goodput 0.980, aim >= 0.98: met",
        "in a window 1.00, aim <= 1: met",
        "switches 5.0, aim <= 5: met",
    ]
    assert report.verdicts([tally(served=979, switches=50)])[0] == "goodput 0.979, aim >= 0.98: MISSED"
    assert report.causes({"hybrid": runs}) == [
        ["strategy", "session limit", "lost: too late"],
        ["hybrid", "2.0 (2)", "15.0"],
    ]


def test_tables():
    """Text is aligned; Markdown has a rule under its head."""
    rows = [["strategy", "x"], ["hybrid", "1.0 (2.0)"]]
    assert report.as_text(rows) == "strategy  x\nhybrid    1.0 (2.0)"
    assert report.as_markdown(rows) == "| strategy | x |\n|---|---|\n| hybrid | 1.0 (2.0) |"


BEGIN, END = report.BEGIN, report.END


def test_the_block_in_the_page_is_replaced():
    """What stands between the markers is replaced, and nothing else; again gives the same."""
    once = report.replaced(f"before\n{BEGIN}\nold\n{END}\nafter\n", "new")
    assert once == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert report.replaced(once, "new") == once


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("nothing", id="no marker"),
        pytest.param(f"{BEGIN} x", id="no end"),
        pytest.param(f"{END} x {BEGIN}", id="wrong order"),
        pytest.param(f"{BEGIN} x {END} {BEGIN} y {END}", id="twice"),
    ],
)
def test_a_page_without_its_markers(text):
    """It is left alone."""
    with pytest.raises(ValueError, match="each once"):
        report.replaced(text, "new")


def test_the_program(tmp_path, monkeypatch, capsys):
    """It prints definitions, table and verdicts; with --write-docs the same table stands in the page."""
    page = tmp_path / "page"
    monkeypatch.setattr(report, "PAGE", page)

    assert report.main(["--seeds", "1", "--strategy", "hybrid", "--why"]) == 0
    text = capsys.readouterr().out
    for part in ("- optimum: ", "- goodput: ", "strategy  goodput", "hybrid    ", "lost: ", "hybrid: switches "):
        assert part in text

    arguments = ["--seeds", "1", "--strategy", "naive", "--markdown", "--write-docs"]
    assert report.main(arguments) == 1
    assert "page stays as it is" in capsys.readouterr().err
    page.write_text(f"{BEGIN}\n{END}\n")
    assert report.main(arguments) == 0
    assert page.read_text() == f"{BEGIN}\n{capsys.readouterr().out}{END}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", "0"], "error: --seeds is at least 1"),
        (["--strategy", "fastest"], "error: argument --strategy: invalid choice: 'fastest'"),
    ],
)
def test_wrong_arguments(arguments, told, capsys):
    """They are refused with a sentence."""
    with pytest.raises(SystemExit, match="2"):
        report.main(arguments)
    assert told in capsys.readouterr().err
