#!/bin/busybox sh
# One side of a scenario, in a session of its own: side.sh SCENARIO SIDE.
. /rxe-vm/lib.sh
describe_side "$2"
. "/rxe-vm/scenarios/$1.sh"
cd /tmp || exit 1
status=0
"$SIDE" || status=$?
tell end "$1 $status"
