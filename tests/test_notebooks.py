"""The notebooks run from the first cell to the last, here with untrained networks."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def outputs_of(name):
    """Execute a notebook; return all that its cells print and show."""
    source = ROOT / "notebooks" / f"{name}.py"
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(source.parent)}}).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_the_walkthrough_runs_without_a_trained_pipeline(monkeypatch, tmp_path):
    monkeypatch.setenv("LIGHTNING_MAV_PIPELINE", str(tmp_path / "none"))
    outputs = outputs_of("walkthrough")
    assert "UNTRAINED" in "".join(output.get("text", "") for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5


def test_the_evaluation_of_a_folder_runs_and_its_report_is_read():
    outputs = outputs_of("evaluation")
    printed = "".join(output.get("text", "") for output in outputs)
    assert "good      fvd" in printed and "report.html" in printed and "changed: fps, size" in printed
    assert any("<svg" in output.get("data", {}).get("text/html", "") for output in outputs)


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_executed_notebook_belongs_to_its_source_and_is_small(source):
    path = source.with_suffix(".ipynb")
    executed, written = nbformat.read(path, as_version=4), jupytext.read(source)
    assert [cell.source for cell in executed.cells] == [cell.source for cell in written.cells]
    assert path.stat().st_size < 2_000_000
