#!/usr/bin/env bash
# All hosts of a TPU VM slice, from any machine with gcloud:
#
#   launch/cluster/tpu_vm.sh setup NAME ZONE      copies this checkout, installs it
#   launch/cluster/tpu_vm.sh run NAME ZONE --exp=char_gpt --workdir=gs://BUCKET/runs/a
#   launch/cluster/tpu_vm.sh stop NAME ZONE       SIGTERM: saves and leaves
#
# `run` starts anew on each host when the processes were interrupted and have saved (exit
# status 42) or lost one of them (43; 134: JAX aborted), unless `stop` has been called.
# PROJECT names the project where gcloud has no default.
set -euo pipefail

usage='usage: launch/cluster/tpu_vm.sh setup|run|stop NAME ZONE [flags of launch.train]'
(($# >= 3)) || { echo "$usage" >&2; exit 2; }
verb=$1 name=$2 zone=$3
shift 3
where=(--zone="$zone" --worker=all)
[[ -z ${PROJECT:-} ]] || where+=(--project="$PROJECT")
on_all() { gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --command="$1"; }

case $verb in
  setup)
    cd "$(dirname "${BASH_SOURCE[0]}")/../.."
    archive=$(mktemp -d)/dlx.tar.gz
    git archive --format=tar.gz --output="$archive" HEAD  # What is committed.
    gcloud compute tpus tpu-vm scp "$archive" "$name:dlx.tar.gz" "${where[@]}"
    on_all 'set -e; mkdir -p dlx; tar -xzf dlx.tar.gz -C dlx; cd dlx
python3 -m venv .venv; .venv/bin/pip install -q -c constraints.txt -e ".[tpu]"'
    ;;
  run)
    printf -v flags ' %q' --multihost "$@"
    on_all "cd dlx; rm -f stop
for restart in \$(seq 0 100); do
  .venv/bin/python -m launch.train$flags &
  echo \$! >pid; wait \$! && status=0 || status=\$?
  [ ! -e stop ] || exit \$status
  case \$status in 42|43|134) echo \"exit status \$status, restart \$restart\" ;;
    *) exit \$status ;; esac
done
exit \$status"
    ;;
  stop)
    # shellcheck disable=SC2016  # Expanded by the hosts.
    on_all 'cd dlx; touch stop; kill -TERM "$(cat pid)"'
    ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac
