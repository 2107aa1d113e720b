#!/bin/bash
# boot-slurm.sh FOLDER INSTALLATION TARGETS: run a Slurm cluster of one node in namespaces of its own.
#
# Its daemons keep all they write below FOLDER. INSTALLATION is at /mnt/rtlaunch and TARGETS at /mnt/targets
# in there. Says "booted" once the node is idle. It ends, with all of its processes, when it is killed.
set -eu
folder=$1 installation=$2 targets=$3
export folder installation targets
exec unshare --mount --pid --fork --kill-child --mount-proc --uts --ipc --net --propagation private bash -euc '
hostname rignode
ip link set lo up
ip link add rig0 type veth peer name rig1 # with lo alone, names do not resolve (AI_ADDRCONFIG)
ip addr add 192.0.2.1/24 dev rig0
ip link set rig0 up
ip link set rig1 up

mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
mkdir /run/munge /mnt/rtlaunch /mnt/targets
mount --bind "$installation" /mnt/rtlaunch
mount --bind "$targets" /mnt/targets
mkdir "$folder"/{state,spool,log,munge}
cp /etc/hosts "$folder/hosts"
echo "127.0.0.1 rignode" >>"$folder/hosts"
mount --bind "$folder/hosts" /etc/hosts

head -c 1024 /dev/urandom >"$folder/munge/key"
chmod 700 "$folder/munge"
chmod 400 "$folder/munge/key"
chown -R munge: "$folder/munge" /run/munge
cat >"$folder/slurm.conf" <<CONF
ClusterName=rig
SlurmctldHost=rignode(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=/run/munge/munge.socket.2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd
MailProg=/bin/true
NodeName=rignode NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$folder/slurm.conf"
cd /
setpriv --reuid=munge --regid=munge --init-groups munged --key-file="$folder/munge/key" \
    --log-file="$folder/munge/log" --pid-file=/run/munge/pid --seed-file="$folder/munge/seed" \
    --socket=/run/munge/munge.socket.2
slurmctld
slurmd
for _ in $(seq 100); do
    if sinfo -h -o %T | grep -qx idle; then break; fi
    sleep 0.1
done
echo booted
while :; do sleep 1000 & wait; done # PID 1 reaps
'
