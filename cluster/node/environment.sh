# shellcheck shell=sh
# Sourced by every shell of a node that `ray up` started: Ray's settings, the workspace, and where the programs are.
for file in ~/evertrue/ray.env ~/evertrue/place.env; do
    while IFS='=' read -r name value; do
        case $name in '' | \#*) continue ;; esac
        export "$name=$value" # as it stands, without quotes: Kubernetes reads the same file
    done <"$file"
done
unset file name value
export PATH="$HOME/evertrue/venv/bin:$HOME/evertrue/bin:$PATH"
export RAY_SERVE_HAPROXY_BINARY_PATH="$HOME/evertrue/bin/evertrue-haproxy"
# Ray wants many open files: as many as it asks for, or as many as this machine allows.
# shellcheck disable=SC3045 # dash and bash, which nodes have, know it
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -H -n)"
