"""The quickstart runs as it stands, and is stored without what it printed."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from app.cluster import free_ports

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


@pytest.mark.ray
@pytest.mark.slow  # goes the whole way once, as a new user would
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_from_top_to_bottom(path, tmp_path, ray_session, monkeypatch):
    import ray

    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    # What a cell showed is waited for as well: a picture that is late would be left out without a word.
    waits = {"timeout": 240, "startup_timeout": 240, "iopub_timeout": 60}
    client = NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}, **waits)
    client.create_kernel_manager()
    client.km.cache_ports = False  # those would be any process's by the time the kernel has started
    for name, port in zip(("shell", "iopub", "stdin", "hb", "control"), free_ports(5), strict=True):
        setattr(client.km, f"{name}_port", port)
    client.km.kernel_spec.argv[0] = sys.executable
    client.execute()
    pictures = [
        out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})
    ]
    assert len(pictures) == 3
    words = "".join(str(out.get("data", "")) for cell in notebook.cells for out in cell.get("outputs", []))
    assert "better than the best constant prediction" in words
    assert "refused" not in words


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_stored_without_outputs_and_holds_no_logic(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert cells
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert {cell.execution_count for cell in cells} == {None}
    assert not [
        cell.source for cell in cells if cell.source.startswith(("def ", "class ")) or "\ndef " in cell.source
    ]
