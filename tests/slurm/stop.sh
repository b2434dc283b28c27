#!/usr/bin/env bash
# Ends the Slurm that start.sh DIR has started.
for daemon in slurmd slurmctld; do
  [ -f "$1/$daemon.pid" ] && kill "$(cat "$1/$daemon.pid")" 2>/dev/null
done
exit 0
