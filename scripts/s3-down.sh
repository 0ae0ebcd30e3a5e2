#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Stop what s3-up.sh started in DIR, gateway first, and wait until it is gone.
set -uo pipefail

dir=${1:?usage: s3-down.sh DIR}
[ -e "$dir/pids" ] || exit 0
for pid in $(tac "$dir/pids"); do
  kill "$pid" 2> /dev/null || continue
  for _ in $(seq 50); do
    kill -0 "$pid" 2> /dev/null || break
    sleep 0.1
  done
  kill -9 "$pid" 2> /dev/null
done
rm -f "$dir/pids"
