"""Print the reference of all metrics: `python -m app.telemetry > docs/metrics.md`."""

import sys

from app.telemetry.names import table

sys.stdout.write(table())
