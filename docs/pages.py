"""What mkdocs.yml has made besides the written pages: the notebook's, and one of the docstrings of each room."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "opencoder_jax"
NOTEBOOK = ROOT / "docs" / "miniature.ipynb"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made, and orders them all."""
    rooms = []
    for folder, modules in rooms_of(PACKAGE):
        path = f"api/{'/'.join(folder.relative_to(ROOT).parts)}.md"
        files.append(File.generated(config, path, content=room_page(modules)))
        rooms.append({".".join(folder.relative_to(ROOT).parts): path})
    for name, content in notebook_page(json.loads(NOTEBOOK.read_text())):
        files.append(File.generated(config, name, content=content))
    config.nav = [
        {"Overview": "index.md"},
        {"The miniature": "miniature.md"},
        {"Commands and fields": "reference.md"},
        {"API": rooms},
    ]
    return files


def rooms_of(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with modules, and their import names; through links, so by the names that one imports."""
    modules = sorted(path for path in folder.glob("*.py") if not path.name.startswith("__"))
    if modules:
        yield folder, [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules]
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield from rooms_of(inner)


def room_page(modules: list[str]) -> str:
    """The docstrings of some modules of one room."""
    room = modules[0].rpartition(".")[0]
    return "\n\n".join([f"# {room}", *(f"::: {module}" for module in modules)]) + "\n"


def notebook_page(notebook: dict[str, Any]) -> Iterator[tuple[str, str | bytes]]:
    """The page of a notebook with what it printed, and its pictures as files."""
    parts = []
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if picture := data.get("image/png"):
                yield f"miniature_{number}.png", base64.b64decode(picture)
                parts.append(f"![What the cell above draws](miniature_{number}.png)")
            elif text := "".join(output.get("text", data.get("text/plain", ""))).strip():
                parts.append(f"```text\n{text}\n```")
    yield "miniature.md", "\n\n".join(parts) + "\n"
