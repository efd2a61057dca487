"""What a user declares: the types of the one YAML file. Reading the file is `app.declaration`'s work.

Every key has a description; the reference in docs/declaration.md and the editors' JSON Schema are
generated from here.
"""

from app.spec.declared import Spec
from app.spec.learning import Model, Train, Tune, Workers
from app.spec.loop import Alerts, Budget, Drift, Journal, Retrain, Rollout
from app.spec.section import Conflict, ConflictError, Section
from app.spec.service import Gate, Serve
from app.spec.table import CategoryFeature, Data, Feature, NumberFeature, Quality, Rule, Split, Task
from app.spec.values import DURATION, MOMENT, NAME, Column, Duration, Moment, Value, write_duration

__all__ = [
    "DURATION",
    "MOMENT",
    "NAME",
    "Alerts",
    "Budget",
    "CategoryFeature",
    "Column",
    "Conflict",
    "ConflictError",
    "Data",
    "Drift",
    "Duration",
    "Feature",
    "Gate",
    "Journal",
    "Model",
    "Moment",
    "NumberFeature",
    "Quality",
    "Retrain",
    "Rollout",
    "Rule",
    "Section",
    "Serve",
    "Spec",
    "Split",
    "Task",
    "Train",
    "Tune",
    "Value",
    "Workers",
    "write_duration",
]
