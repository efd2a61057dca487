"""A model version in memory, ready to answer; and who answers now: champion, challenger, and its share."""

from dataclasses import dataclass
from typing import Any

import msgspec

from app.data.features import FeaturePlan
from app.lineup import Lineup
from app.model.bundle import Bundle
from app.model.runtime import Runtime
from app.monitor.binning import Binning
from app.serving.arrow_codec import ArrowCodec
from app.serving.codec import Codec, Fields
from app.serving.json_codec import JsonCodec
from app.serving.openapi import docs_page, openapi
from app.spec import Spec


@dataclass(frozen=True, eq=False)
class Loaded:
    """Everything that changes when the version does. `reference` is the id of the bundle that `binning` came with."""

    version: str
    model: str
    reference: str
    plan: FeaturePlan
    binning: Binning
    runtime: Runtime
    codecs: dict[str, Codec]
    description: dict[str, Any]
    documents: dict[str, tuple[str, bytes]]

    @staticmethod
    def of(bundle: Bundle, spec: Spec, version: str, use_gpu: bool) -> "Loaded":
        """Load and warm a bundle's graph. Blocks for some 10 ms: not for the event loop."""
        model = f"{spec.name}/{version}"
        fields = Fields(bundle.plan, spec.serve.max_request_rows, spec.data.timezone)
        runtime = bundle.runtime(use_gpu=use_gpu)
        runtime.warm()
        codecs: list[Codec] = [kind(fields, model, spec.task.threshold) for kind in (JsonCodec, ArrowCodec)]
        description = {
            "model": model,
            "version": version,
            "bundle": bundle.version_id,
            "task": bundle.plan.target.task,
            "target": bundle.plan.target.name,
            "classes": bundle.plan.target.classes,
            "features": {name: fields.kind(name) for name in bundle.plan.names},
            "metrics": bundle.metrics,
            "device": runtime.device,
            "links": [{"name": name, "address": address} for name, address in spec.serve.links.items()],
        }
        documents = {
            "openapi.json": ("application/json", msgspec.json.encode(openapi(spec, fields, model))),
            "docs": ("text/html; charset=utf-8", docs_page(spec, fields, model).encode()),
        }
        return Loaded(
            version=version,
            model=model,
            reference=bundle.version_id,
            plan=bundle.plan,
            binning=bundle.reference.binning,
            runtime=runtime,
            codecs={codec.content_type: codec for codec in codecs},
            description=description,
            documents=documents,
        )


@dataclass(frozen=True, eq=False)
class Standing:
    """Who answers: the versions of one line-up, loaded, and the pages that tell of them.

    `fault` says why a challenger of the line-up is not there.
    """

    generation: int
    champion: Loaded
    challenger: Loaded | None
    share: float
    fault: str | None
    documents: dict[str, tuple[str, bytes]]

    @staticmethod
    def of(lineup: Lineup, champion: Loaded, challenger: Loaded | None, fault: str | None = None) -> "Standing":
        """Take the place of a line-up; a challenger that answers other classes than the champion cannot stand beside it."""
        if challenger is not None:
            ours, theirs = champion.plan.target, challenger.plan.target
            if (ours.task, ours.classes) != (theirs.task, theirs.classes):
                fault = f"answers {theirs.task} {list(theirs.classes)}, the champion {ours.task} {list(ours.classes)}"
                challenger = None
        share = lineup.share if challenger else 0.0
        standing = {
            "generation": lineup.generation,
            "champion": champion.version,
            "challenger": challenger.version if challenger else None,
            "share": share,
            "fault": fault,
        }
        ready = {"status": "ready", "model": champion.model} | standing
        documents = {
            "model": ("application/json", msgspec.json.encode(champion.description | standing)),
            "readyz": ("application/json", msgspec.json.encode(ready)),
            **champion.documents,
        }
        return Standing(lineup.generation, champion, challenger, share, fault, documents)
