"""Examples bring a script that builds their table: run it when the table is not there yet."""

import runpy

from app.declaration import Declaration


def build_table(declaration: Declaration) -> None:
    """Run `build.py` beside the declaration if there is one and the declared source is missing."""
    script = declaration.path.parent / "build.py"
    source = declaration.spec.data.source
    if script.exists() and isinstance(source, str) and not (declaration.path.parent / source).exists():
        runpy.run_path(str(script), run_name="__main__")
