#!/usr/bin/env bash
# A real Slurm of one node on this machine, on loopback, with two pretended GPUs: for tests, never for work.
#   cluster.sh install       the Debian packages, without starting anything (root)
#   cluster.sh up FOLDER     start munged, slurmctld and slurmd; returns when a probe job has run on a GPU
#   cluster.sh down FOLDER   stop them, by the process ids in FOLDER
#   cluster.sh purge         remove the packages: with slurm-client and no controller every `snakemake` starts 10 s late
set -euo pipefail

CONFIG=/etc/slurm # not elsewhere: the step inside a batch job loses SLURM_CONF
PACKAGES=(slurmctld slurmd slurm-client munge)

packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get "$@"
}

install() {
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d # services stay down
  chmod +x /usr/sbin/policy-rc.d
  packages update -qq
  packages install -qq --yes --no-install-recommends "${PACKAGES[@]}" >/dev/null
  rm /usr/sbin/policy-rc.d
}

purge() {
  packages purge -qq --yes "${PACKAGES[@]}" >/dev/null
  packages autoremove -qq --yes >/dev/null
  rm -rf "$CONFIG"
}

up() {
  local folder=$1 host
  host=$(hostname -s)
  if [ -e $CONFIG/slurm.conf ] && ! grep -q '^ClusterName=privset-test$' $CONFIG/slurm.conf; then
    echo "$CONFIG/slurm.conf exists and is not ours: this machine belongs to a cluster" >&2
    exit 3
  fi
  mkdir -p "$folder" $CONFIG /run/munge /var/log/munge /var/lib/munge /etc/munge
  chmod 755 "$folder"
  getent hosts "$host" >/dev/null || echo "127.0.0.1 $host" >>/etc/hosts

  [ -s /etc/munge/munge.key ] || head -c 1024 /dev/urandom >/etc/munge/munge.key
  chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
  chmod 400 /etc/munge/munge.key
  chmod 755 /run/munge
  setpriv --reuid=munge --regid=munge --init-groups munged --force
  cp /run/munge/munged.pid "$folder/munged.pid"

  for card in 0 1; do
    [ -e "$folder/gpu$card" ] || mknod "$folder/gpu$card" c 1 3
    echo "Name=gpu Type=fake File=$folder/gpu$card"
  done >$CONFIG/gres.conf
  mkdir -p "$folder/state" "$folder/spool"
  cat >$CONFIG/slurm.conf <<CONF
ClusterName=privset-test
SlurmctldHost=$host(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,bf_interval=5,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
SlurmdTimeout=300
MinJobAge=3600
ReturnToService=2
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000 Gres=gpu:fake:2
PartitionName=gpu Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
  slurmctld
  slurmd -N "$host"
  for _ in $(seq 30); do
    if srun --immediate=3 --ntasks=1 --gpus=1 true 2>/dev/null; then return; fi
    sleep 1
  done
  echo "Slurm did not run a probe job; see $folder/*.log" >&2
  exit 4
}

down() {
  local folder=$1
  for daemon in slurmd slurmctld munged; do
    if [ -s "$folder/$daemon.pid" ]; then kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true; fi
  done
}

"$@"
