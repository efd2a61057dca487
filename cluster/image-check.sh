#!/usr/bin/env bash
# Build the image for CPUs without a container engine and without a registry, and look into it. Needs root, Debian's
# buildah and mmdebstrap, and ten minutes: for whoever changes the Dockerfile, not part of the tests.
#   cluster/image-check.sh [FOLDER of torch's CPU wheels, where their index cannot be reached]
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=${1:-}
work=$(mktemp -d)
build() { buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs "$@"; }
trap 'build rm --all >/dev/null; build rmi --all --force >/dev/null; rm -rf "$work"' EXIT

# In place of python:3.11-slim-bookworm, which would have to be pulled: Debian 12 has the same Python.
mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3-pip,python3-venv bookworm "$work/base.tar"
printf 'FROM scratch\nADD base.tar /\nRUN rm /usr/lib/python3*/EXTERNALLY-MANAGED\n' >"$work/Dockerfile"
build bud --quiet --isolation chroot --tag base "$work"

options=(--volume /etc/ssl/certs:/etc/ssl/certs:ro) # this machine's, whoever signs for its registry
sed 's|^ENV VIRTUAL_ENV|ENV UV_SYSTEM_CERTS=1 VIRTUAL_ENV|' Dockerfile >"$work/evertrue"
if [ -n "$wheels" ]; then
    options+=(--volume "$(realpath "$wheels"):/wheels:ro")
    sed -i 's|--torch-backend cpu|--find-links /wheels|' "$work/evertrue"
fi
build bud --format docker --isolation chroot "${options[@]}" --build-arg BASE=localhost/base --tag evertrue --file "$work/evertrue" .

container=$(build from evertrue)
inside() { build run --isolation chroot "$container" -- "$@"; }
[ "$(inside id -u)" = 1000 ]
inside ray --version
inside python -c 'import app.pipeline, app.serving.deploy, jobs.train, lightgbm, onnxruntime, torch'
for program in bash ps wget; do inside which "$program"; done
for program in uv gcc git; do if inside which "$program" 2>/dev/null; then exit 1; fi; done
build inspect --type image evertrue | grep -q '"health-check"'
inside sh -c '! touch /opt/evertrue/x 2>/dev/null'
du -sh "$(build mount "$container")"
echo good
