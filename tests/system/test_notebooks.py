"""Each notebook of docs/notebooks runs without an error or a warning, and is stored without outputs."""

from pathlib import Path

import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_warns_of_nothing(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    warned = [
        o.text for cell in code for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"
    ]
    assert not warned
    assert sum(bool(cell.outputs) for cell in code) >= 3
    assert list(tmp_path.iterdir()) == []  # runs in memory


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        assert cell.cell_type == "markdown" or (not cell.outputs and cell.execution_count is None)


def test_all_four_subjects_are_there() -> None:
    assert {path.stem for path in NOTEBOOKS} == {
        "anatomy_of_an_update", "compare_two_rules", "first_agent", "your_own_rule",
    }  # fmt: skip
