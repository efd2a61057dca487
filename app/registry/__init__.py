"""Runs and versions, kept by MLflow.

A run is one training: its declaration, curves, figures and card. A version is one bundle, with its lineage. Everything
is in `mlflow.db` and `mlflow-artifacts/` in the workspace, or on the server that $MLFLOW_TRACKING_URI names. MLflow is
told to send no telemetry; replicas never import it, they get a bundle's address.
"""

from app.registry.runs import Run
from app.registry.versions import Registry, Version

__all__ = ["Registry", "Run", "Version"]
