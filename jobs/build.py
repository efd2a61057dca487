"""Examples bring a script that builds their table: run it when the table is not there yet."""

import subprocess
import sys

from app.data.files import list_files
from app.declaration import Declaration
from app.types import UserError


def build_table(declaration: Declaration) -> None:
    """Run `build.py` beside the declaration if there is one and the declared source, a path or glob, is missing.

    Raises UserError where the script fails; what it has said of it stands above.
    """
    script = declaration.path.resolve().parent / "build.py"
    source = declaration.spec.data.source
    if not script.exists() or not isinstance(source, str) or "://" in source:
        return
    if (script.parent / source).exists():
        return
    try:
        list_files(declaration.spec.data, script.parent)
    except UserError:
        status = subprocess.run([sys.executable, str(script)]).returncode
        if status:
            raise UserError(f"{script}, which builds the table, ended with status {status}; see above") from None
