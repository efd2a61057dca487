"""What a version must prove before it serves, and how it answers."""

import datetime as dt
import ipaddress
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from app.spec.section import Conflict, Section
from app.spec.values import ABSOLUTE_PATH, Column, PositiveDuration, WebAddress


class Gate(Section):
    """What a challenger has to prove before it may serve."""

    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of every interval.")
    margin: float = Field(
        0.02,
        ge=0,
        description="Relative loss by which a version may trail the baseline, or on one slice the champion, and pass.",
    )
    slices: list[Column] = Field(
        default_factory=list,
        description="Columns whose every common value is judged and reported apart.",
        examples=[["origin"]],
    )
    window: PositiveDuration = Field(
        dt.timedelta(days=28),
        description="A retrained version is judged on the labelled rows of this long before the newest; they do not train.",
    )
    min_rows: int = Field(500, ge=1, description="Fewest labelled rows a verdict may rest on.")
    resamples: int = Field(
        1000, ge=100, le=100_000, description="Bootstrap resamples (of days where there is a time)."
    )
    max_latency: PositiveDuration = Field(
        dt.timedelta(milliseconds=20), description="Largest 99th percentile of one row's prediction."
    )
    max_megabytes: float = Field(100, gt=0, description="Largest size of the bundle.")

    def conflicts(self) -> Iterator[Conflict]:
        """Yield a slice given twice."""
        if repeated := [name for name, count in Counter(self.slices).items() if count > 1]:
            yield ("slices",), f"given more than once: {', '.join(map(repr, repeated))}"


class Tls(Section):
    """By what the endpoint proves itself to its clients."""

    certificate: str = Field(
        pattern=ABSOLUTE_PATH,
        description="PEM file of the certificate, followed by those between it and the root.",
        examples=["/etc/evertrue/tls.crt"],
    )
    key: str = Field(
        pattern=ABSOLUTE_PATH,
        description="PEM file of its private key, without a password and readable by nobody but owner and group.",
        examples=["/etc/evertrue/tls.key"],
    )


class Serve(Section):
    """How the endpoint answers."""

    host: str = Field(
        "127.0.0.1", min_length=1, description="Address the endpoint listens on; loopback unless told otherwise."
    )
    port: int = Field(8000, ge=1, le=65535, description="Port the endpoint listens on.")
    keys: Literal["auto", "required", "none"] = Field(
        "auto",
        description="Whether a request has to carry a key (`python -m jobs.keys` makes them). `auto`: as soon as `host` "
        "is not loopback. `none` beyond loopback leaves it to something in front to say who may ask.",
    )
    tls: Tls | None = Field(None, description="Speak HTTPS, and nothing else; left out: HTTP.")
    min_replicas: int = Field(1, ge=1, description="Fewest replicas.")
    max_replicas: int = Field(4, ge=1, description="Most replicas.")
    target_ongoing_requests: float = Field(
        64, gt=0, description="Requests in flight a replica is meant to carry; more of them start another."
    )
    max_ongoing_requests: int = Field(512, ge=1, description="Most requests one replica works on at once.")
    max_queued_requests: int = Field(
        512,
        ge=0,
        description="Requests that may wait for a replica; beyond it the answer is 429 with Retry-After.",
    )
    max_batch_rows: int = Field(1024, ge=1, description="Most rows of small requests scored together.")
    max_request_rows: int = Field(100_000, ge=1, description="Most rows of one request.")
    max_request_bytes: int = Field(33_554_432, ge=1024, description="Largest request body.")
    cpus_per_replica: float = Field(1, gt=0, description="CPUs a replica reserves.")
    use_gpu: Literal["auto"] | bool = Field(
        False,
        description="Answer on GPUs; `auto` when the cluster has any. A small network is faster without.",
    )
    links: dict[Annotated[str, Field(min_length=1, max_length=30)], WebAddress] = Field(
        default_factory=dict,
        max_length=8,
        description="Pages that the console links to, by name: where Grafana, MLflow or Ray's dashboard can be seen.",
        examples=[{"MLflow": "https://mlflow.example.com/"}],
    )

    @property
    def on_loopback(self) -> bool:
        """Whether this machine alone reaches the endpoint."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def listens(self) -> str:
        """Where the endpoint is asked: `host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def needs_keys(self) -> bool:
        """Whether a request has to carry a key."""
        return self.keys == "required" or (self.keys == "auto" and not self.on_loopback)

    def conflicts(self) -> Iterator[Conflict]:
        """Yield limits that could never be reached."""
        if self.min_replicas > self.max_replicas:
            yield ("min_replicas",), f"{self.min_replicas} is above max_replicas {self.max_replicas}"
        if self.target_ongoing_requests > self.max_ongoing_requests:
            yield (
                ("target_ongoing_requests",),
                f"{self.target_ongoing_requests:g} is above max_ongoing_requests {self.max_ongoing_requests}, "
                "so no replica would ever be added",
            )
