"""Examples bring a script that builds their table: run it when the table is not there yet."""

import subprocess
import sys

from app.declaration import Declaration


def build_table(declaration: Declaration) -> None:
    """Run `build.py` beside the declaration if there is one and the declared source is missing."""
    script = declaration.path.resolve().parent / "build.py"
    source = declaration.spec.data.source
    if script.exists() and isinstance(source, str) and not (script.parent / source).exists():
        subprocess.run([sys.executable, str(script)], check=True)
