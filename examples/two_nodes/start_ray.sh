#!/usr/bin/env bash
# Starts Ray on one node of a cluster.
#
#     bash examples/two_nodes/start_ray.sh head                # on the first node
#     bash examples/two_nodes/start_ray.sh worker HEAD[:PORT]  # on each other one; HEAD is its address
#
# Not run on a GPU yet. Further options of `ray start` go at the end. `ray stop` ends it again.
set -euo pipefail

role=${1:?head, or worker HEAD[:PORT]}
shift
case $role in
head)
    ray start --head --port="${PORT:-6379}" "$@"
    ;;
worker)
    head=${1:?the address of the first node}
    shift
    [[ $head == *:* ]] || head=$head:6379
    ray start --address="$head" "$@"
    ;;
*)
    echo "start_ray.sh: $role: expected head or worker" >&2
    exit 2
    ;;
esac
