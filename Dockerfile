# Evertrue and all it needs, as an ordinary user. torch comes as the package index gives it, for GPUs; for CPUs
# alone name the index of torch's CPU wheels, and for GPU answers add ONNX Runtime's GPU package:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=... -t evertrue:cpu .
#   docker build --build-arg EXTRA=onnxruntime-gpu -t evertrue:gpu .
FROM python:3.11-slim-bookworm

ARG PIP_EXTRA_INDEX_URL=
ARG EXTRA=
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 RAY_AUTH_MODE=token

# libgomp: LightGBM's threads; tzdata: Arrow's time zones; procps: `ps`, which Ray's dashboard calls.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 procps tzdata \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ray

WORKDIR /home/ray/evertrue
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY app app
COPY jobs jobs
RUN pip install --constraint requirements.lock . ${EXTRA}

USER ray
# A head, with its dashboard on loopback: reach it through a tunnel.
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["ray", "health-check"]
CMD ["ray", "start", "--head", "--dashboard-host=127.0.0.1", "--block"]
