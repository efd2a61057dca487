"""What would the loop's probe have told on that day?"""

import threading

import numpy as np
import pyarrow as pa

from app.backtest.history import History
from app.backtest.models import Model
from app.data.encode import Examples
from app.decisions.probe import Gain, gain
from app.spec import Spec


class Probes:
    """Probes champions on the rows whose labels are known at a moment; one at a time, for each takes a CPU."""

    def __init__(self, spec: Spec, history: History) -> None:
        self._spec = spec
        self._history = history
        self._lock = threading.Lock()
        self._told: dict[tuple[str, int], Gain] = {}

    def __call__(self, champion: Model, until: int) -> Gain:
        """Return the gain. Raises UserError as `app.decisions.probe.gain`."""
        with self._lock:
            key = champion.key, until
            if key not in self._told:
                examples = self._examples(champion, until)
                self._told[key] = gain(self._spec, champion.plan, examples, champion.trained_until)
            return self._told[key]

    def _examples(self, champion: Model, until: int) -> Examples:
        history, plan = self._history, champion.plan
        rows = history.known(int(history.time[0]), until)
        table = history.table.take(pa.array(rows))
        target = plan.target.encode(table[history.prepared.target])
        return Examples(plan.encode(table), target, history.time[rows], np.arange(len(rows)))
