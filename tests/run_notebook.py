"""Runs a notebook and keeps what it prints and draws: `make notebook`, or `python -m tests.run_notebook NOTEBOOK`."""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent


def run(notebook: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook after every cell ran, in `folder` and with this Python; raises when a cell fails."""
    content = nbformat.read(notebook, as_version=4)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    client = NotebookClient(
        content,
        timeout=1200,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    content.metadata = {"kernelspec": content.metadata["kernelspec"], "language_info": {"name": "python"}}
    return content


if __name__ == "__main__":
    path = Path(sys.argv[1])
    nbformat.write(run(path, path.parent), path)
