"""The article and the README's tables of a result folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fairshare.analysis.article import write_article
from fairshare.analysis.markdown import write_markdown
from fairshare.analysis.pipeline import BuiltAnalysis, build_analysis
from fairshare.records import Mode
from tests.results_factory import FakeTenant, make_results


def test_an_article_has_all_that_is_claimed(drawn: BuiltAnalysis) -> None:
    """Verdict, booktabs tables, vector figures beside it, method, failures and provenance."""
    path = write_article(drawn)
    text = path.read_text()
    for part in (
        r"\documentclass[conference]{IEEEtran}", r"\toprule", r"\section{Method}",
        r"\section{Provenance}", "what to run for which goal", r"Imagined CPU",
        r"no \textbackslash{}MIG\_here \& \textbar{}", "measured on cpu",
    ):  # fmt: skip
        assert part in text
    assert r"\input" not in text
    lines = [line for line in text.splitlines() if "detokenize" in line]
    shown = {line.split("detokenize{")[1].partition("}")[0] for line in lines}
    assert {name.partition("_")[0] for name in shown} >= {"throughput", "tail-latency", "slowdown"}
    assert shown == {each.name for each in path.parent.glob("*.pdf")}


def test_a_readme_has_the_same_tables(drawn: BuiltAnalysis) -> None:
    """Each table has as many cells in every line, whatever names contain."""
    lines = write_markdown(drawn).read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert any("hostile" in line for line in lines)
    assert any("Throughput" in row for row in rows)
    for table in "\n".join(lines).split("\n## "):
        counts = {
            line.replace("\\\\", "").replace("\\|", "").count("|")
            for line in table.splitlines()
            if line.startswith("|")
        }
        assert len(counts) <= 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="TeX (pdflatex) is not installed")
def test_the_article_compiles(drawn: BuiltAnalysis, tmp_path: Path) -> None:
    """No error and nothing undefined, with shell escape off, from a folder of its own."""
    folder = tmp_path / "article"
    shutil.copytree(write_article(drawn).parent, folder)
    kpse = subprocess.run(["kpsewhich", "IEEEtran.cls"], capture_output=True, check=False)
    if kpse.returncode:
        pytest.skip("the class IEEEtran is not installed (texlive-publishers)")
    done = subprocess.run(
        ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "article"],
        cwd=folder,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode("utf-8", "replace")[-2000:]
    assert (folder / "article.pdf").read_bytes().startswith(b"%PDF")


def test_a_crowd_is_one_line(tmp_path: Path) -> None:
    """Of more tenants than anybody reads a line each the totals are shown; the title says so."""
    crowd = [FakeTenant(f"user-{number}", 8, 2, rate_per_s=1.0) for number in range(20)]
    make_results(
        tmp_path / "out", modes=(Mode.LOGICAL,), concurrency=(None,), repetitions=1, tenants=crowd,
        window_s=2.0,
    )  # fmt: skip
    made = build_analysis(tmp_path / "out", figures=False, html=False)
    text = write_markdown(made).read_text()
    assert "all tenants together" in text
    assert "user-7" not in text
