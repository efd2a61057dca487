"""What a user declares: the types of the one YAML file. Reading the file is `app.declaration`'s work.

Every key has a description; the reference in docs/declaration.md and the editors' JSON Schema are
generated from here.
"""

from app.spec.declared import Spec
from app.spec.learning import Kind, Model, Single, Train, Trees, Workers
from app.spec.loop import Alerts, Budget, Drift, Journal, Retrain, Rollout
from app.spec.search import Choice, Compress, Quantisation, Range, Searched, Student, Teacher, Tune
from app.spec.section import Conflict, ConflictError, Section
from app.spec.service import Gate, Serve, Tls
from app.spec.table import CategoryFeature, Data, Feature, NumberFeature, Quality, Rule, Split, Task
from app.spec.values import (
    ABSOLUTE_PATH,
    DURATION,
    MOMENT,
    NAME,
    WEB_ADDRESS,
    Column,
    Duration,
    Moment,
    Value,
    write_duration,
)

__all__ = [
    "ABSOLUTE_PATH",
    "DURATION",
    "MOMENT",
    "NAME",
    "WEB_ADDRESS",
    "Alerts",
    "Budget",
    "CategoryFeature",
    "Choice",
    "Column",
    "Compress",
    "Conflict",
    "ConflictError",
    "Data",
    "Drift",
    "Duration",
    "Feature",
    "Gate",
    "Journal",
    "Kind",
    "Model",
    "Moment",
    "NumberFeature",
    "Quality",
    "Quantisation",
    "Range",
    "Retrain",
    "Rollout",
    "Rule",
    "Searched",
    "Section",
    "Serve",
    "Single",
    "Spec",
    "Split",
    "Student",
    "Task",
    "Teacher",
    "Tls",
    "Train",
    "Trees",
    "Tune",
    "Value",
    "Workers",
    "write_duration",
]
