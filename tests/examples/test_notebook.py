"""examples/petrichor.ipynb runs from top to bottom, as Jupyter and Colab run it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytestmark = pytest.mark.extras

SHORT = {"DATA.REPEAT 4 OPTIM.EPOCHS 2": "DATA.REPEAT 1 OPTIM.EPOCHS 2"}  # seconds, not a minute


def test_the_notebook_runs_and_shows_what_it_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    clone = tmp_path / "clone"  # the notebook must not write into the repository
    skipped = shutil.ignore_patterns(".git", ".venv", "tests", "demo", "runs", "__pycache__")
    shutil.copytree(ROOT, clone, ignore=skipped)
    notebook = nbformat.read(clone / "examples" / "petrichor.ipynb", as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs"), "the notebook is committed without outputs"
        for long, short in SHORT.items():
            cell.source = cell.source.replace(long, short)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(clone / "examples")}}
    )
    client.execute()  # raises where a cell does
    written = clone / "demo" / "notebook"
    table = (written / "scores" / "table.md").read_text()
    for method in ("petrichor", "median", "dmsr_s", "rainy input"):
        assert method in table
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2
    assert (written / "scores" / "report.html").is_file()
