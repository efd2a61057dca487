"""Write what is generated from the declaration's types: `--schema` for editors, `--reference` for readers."""

import argparse
import json
import sys

from app.declaration.reference import markdown
from app.declaration.schema import json_schema


def main() -> None:
    """Print the chosen document, or write it to a file."""
    parser = argparse.ArgumentParser(prog="python -m app.declaration", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--schema", action="store_true", help="JSON Schema, draft 2020-12")
    what.add_argument("--reference", action="store_true", help="reference in Markdown")
    sys.stdout.write(schema_text() if parser.parse_args().schema else markdown())


def schema_text() -> str:
    """Return the JSON Schema as it is kept in docs/."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
