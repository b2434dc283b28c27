#!/usr/bin/env bash
# A real Slurm on this machine, for the tests: bash tests/slurm/start.sh DIR, and tests/slurm/stop.sh DIR.
# On Debian as root it installs what is missing. Prints the environment in which Slurm's commands find this one.
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd)
if ! command -v slurmctld >/dev/null || ! command -v srun >/dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "no Slurm here, and no way to install it" >&2
    exit 3
  fi
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurmctld slurmd slurm-client munge >&2
fi
if [ "$(id -u)" != 0 ]; then
  echo "Slurm's daemons must be started by root here" >&2
  exit 3
fi
host=$(hostname -s)
mkdir -p "$dir/state" "$dir/spool"
cat >"$dir/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=2,batch_sched_delay=1,bf_interval=2
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=60
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$dir/slurm.conf"
# No file of ours stays open in a daemon, or who reads our output waits for ever.
slurmctld >>"$dir/daemons.log" 2>&1 </dev/null
slurmd >>"$dir/daemons.log" 2>&1 </dev/null
for _ in $(seq 60); do
  if [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; then
    echo "SLURM_CONF=$SLURM_CONF"
    exit 0
  fi
  sleep 0.5
done
tail -n 20 "$dir"/*.log >&2
exit 4
