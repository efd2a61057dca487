# Evertrue and all it needs, as an ordinary user: for CPUs, or, by one argument, for Nvidia's GPUs as well.
#   docker build --tag evertrue:0.1.0-cpu .
#   docker build --tag evertrue:0.1.0-gpu --build-arg DEVICE=gpu .
# Ray wants its token: -v ~/.ray/auth_token:/home/ray/.ray/auth_token:ro, readable by user 1000.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG DEVICE=cpu
ENV VIRTUAL_ENV=/opt/evertrue UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /build
RUN pip install --no-cache-dir uv==0.13.8 && uv venv --python 3.11 /opt/evertrue
COPY pyproject.toml requirements.lock ./
# The runtime that answers on GPUs shares its folder with the other, so that one has to go first.
RUN case "$DEVICE" in \
        cpu) uv pip install --constraint requirements.lock --requirements pyproject.toml --torch-backend cpu ;; \
        gpu) uv pip install --constraint requirements.lock --requirements pyproject.toml \
            && uv pip uninstall onnxruntime && uv pip install onnxruntime-gpu==1.31.1 ;; \
        *) echo "found DEVICE=$DEVICE, allowed: cpu, gpu" >&2; exit 2 ;; \
    esac
COPY README.md LICENSE ./
COPY app app
COPY jobs jobs
RUN uv pip install --no-deps . \
    && "$VIRTUAL_ENV/bin/python" -c 'from pathlib import Path; from app.cluster import write_launcher; \
write_launcher(Path("/opt/evertrue/bin/evertrue-haproxy"))'

FROM ${BASE}
# libgomp: LightGBM's threads; tzdata: Arrow's time zones; procps: `ps`, which Ray's dashboard calls; wget: KubeRay's
# probes of pods that serve.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 procps tzdata wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --user-group ray
COPY --from=build /opt/evertrue /opt/evertrue
ENV PATH=/opt/evertrue/bin:$PATH PYTHONUNBUFFERED=1 RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 \
    RAY_SERVE_HAPROXY_BINARY_PATH=/opt/evertrue/bin/evertrue-haproxy
USER 1000:1000
WORKDIR /home/ray
# A head, with its dashboard on loopback: reach it through a tunnel.
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["ray", "health-check"]
CMD ["ray", "start", "--head", "--dashboard-host=127.0.0.1", "--block"]
