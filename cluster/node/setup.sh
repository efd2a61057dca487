#!/usr/bin/env bash
# Make a node of `ray up` out of a fresh machine: Python 3.11, the package as it was tested, Ray's settings, the token.
# Arguments: the workspace, MLflow's address, and on the head what else it needs to start workers (boto3, ...).
set -euo pipefail
workspace=$1 registry=$2
shift 2
cd ~/evertrue

chmod 700 ~/.ray ~/evertrue # the head keeps Ray's state in ~/evertrue: what actors were given is in it, as it was
chmod 600 ~/.ray/auth_token
printf '%s\n' "EVERTRUE_WORKSPACE=$workspace" "MLFLOW_TRACKING_URI=$registry" >place.env
# shellcheck source=cluster/node/environment.sh
. ./environment.sh

uv=0.13.8 # brings Python 3.11, whatever the machine has, and the torch that fits its GPU, or none
if [ ! -x bin/uv ]; then
    curl --proto '=https' --tlsv1.2 -fsSL "https://astral.sh/uv/$uv/install.sh" |
        env UV_INSTALL_DIR="$PWD/bin" UV_NO_MODIFY_PATH=1 sh
fi
[ -x venv/bin/python ] || uv venv --quiet --python 3.11 venv
install() { uv pip install --quiet --python venv/bin/python --constraint requirements.lock "$@"; }
install --torch-backend auto ./evertrue-*.whl "$@"
if command -v nvidia-smi >/dev/null; then # shares its folder with the other, so one has to go first
    uv pip uninstall --quiet --python venv/bin/python onnxruntime
    install --reinstall-package onnxruntime-gpu onnxruntime-gpu==1.31.1
fi

venv/bin/python -c 'from pathlib import Path; from app.cluster import write_launcher
write_launcher(Path("bin/evertrue-haproxy"))' # what environment.sh names: it puts HAProxy on loopback, or where told

line='. ~/evertrue/environment.sh'
grep -qxF "$line" ~/.bashrc || printf '%s\n' "$line" >>~/.bashrc # for `ray exec`, `ray attach`, `ray status`
