#!/usr/bin/env bash
# A cluster on one machine: N processes of one run on its CPUs, over gloo.
#
#   launch/cluster/local.sh N --exp=char_gpt --workdir=runs/a [more flags of launch.train]
#
# DEVICES=2   simulated devices a process (default 1)
# PORT=...    of process 0 (default: a free one)
# LOGS=...    folder for the output of processes 1, 2, ...; that of 0 comes here
#
# SIGTERM and SIGINT are handed on. The exit status is the smallest that is not 0: 1 and 2
# before 42 (saved; give the same command again) before 43 (a process was lost).
set -uo pipefail

usage='usage: launch/cluster/local.sh N --exp=NAME [flags of launch.train]'
count=${1:-}
[[ $count =~ ^[1-9][0-9]*$ && $# -ge 2 ]] || { echo "$usage" >&2; exit 2; }
shift
python=${PYTHON:-python}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd) || exit
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
port=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0))
print(s.getsockname()[1])')}
logs=${LOGS:-$(mktemp -d)}
mkdir -p "$logs" || exit
export JAX_PLATFORMS=cpu
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=${DEVICES:-1}"

pids=() signalled=
trap 'signalled=1; kill -TERM "${pids[@]}" 2>/dev/null' TERM INT
for ((i = 0; i < count; i++)); do
  command=("$python" -m launch.train --multihost "--coordinator=localhost:$port"
    "--num_processes=$count" "--process_id=$i" "$@")
  if ((i == 0)); then "${command[@]}" & else "${command[@]}" >"$logs/$i.log" 2>&1 & fi
  pids+=($!)
done

status=0
for pid in "${pids[@]}"; do
  wait "$pid"; one=$?
  # A signal to this script ended `wait`, not the process that it waits for.
  while [[ $signalled ]]; do signalled=; wait "$pid"; one=$?; done
  if ((one != 0 && (status == 0 || one < status))); then status=$one; fi
done
((status == 0)) || echo "exit status $status; the other processes' logs: $logs" >&2
exit "$status"
