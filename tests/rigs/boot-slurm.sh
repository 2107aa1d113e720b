#!/bin/bash
# boot-slurm.sh FOLDER INSTALLATION TARGETS [CGROUP]: run a Slurm cluster in namespaces of its own.
#
# Of one node, rignode, that follows processes by their parents; or, with CGROUP, of two, rig1 and rig2,
# that hold each step and its memory in cgroups (of version 1) below those called CGROUP.
# Its daemons keep all they write below FOLDER. INSTALLATION is at /mnt/rtlaunch and TARGETS at /mnt/targets
# in there. Says "booted" once all nodes are idle. It ends, with all of its processes, when it is killed;
# the caller removes FOLDER and cgroups.
set -eu
folder=$1 installation=$2 targets=$3 cgroup=${4:-}
controllers="freezer memory"
export folder installation targets cgroup controllers
for controller in ${cgroup:+$controllers}; do
    mkdir "/sys/fs/cgroup/$controller/$cgroup"
    echo $BASHPID >"/sys/fs/cgroup/$controller/$cgroup/cgroup.procs"
done
exec unshare --mount --pid --fork --kill-child --mount-proc --cgroup --uts --ipc --net --propagation private bash -euc '
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
mkdir "$folder"/{state,log,munge}
mkdir -m 1777 "$folder/tmp"
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
SelectType=select/cons_tres
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd-%n.pid
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd-%n
MailProg=/bin/true
NodeName=DEFAULT CPUs=4 RealMemory=1000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
if [ -z "$cgroup" ]; then
    nodes=rignode
    cat >>"$folder/slurm.conf" <<CONF
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
NodeName=rignode NodeAddr=127.0.0.1
CONF
else
    nodes="rig1 rig2"
    cat >>"$folder/slurm.conf" <<CONF
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
SelectTypeParameters=CR_CPU_Memory
DefMemPerNode=200
NodeName=rig1 NodeAddr=127.0.0.1 Port=6819
NodeName=rig2 NodeAddr=127.0.0.1 Port=6820
CONF
    cat >"$folder/cgroup.conf" <<CONF
CgroupPlugin=cgroup/v1
ConstrainRAMSpace=yes
CONF
    mount -t tmpfs tmpfs /sys/fs/cgroup
    for controller in $controllers; do
        mkdir "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
    done
fi
export SLURM_CONF="$folder/slurm.conf"
cd /
setpriv --reuid=munge --regid=munge --init-groups munged --key-file="$folder/munge/key" \
    --log-file="$folder/munge/log" --pid-file=/run/munge/pid --seed-file="$folder/munge/seed" \
    --socket=/run/munge/munge.socket.2
slurmctld
for node in $nodes; do
    mkdir "$folder/spool-$node"
    unshare --uts sh -c "hostname $node; exec slurmd"
done
for _ in $(seq 100); do
    if ! sinfo -h -N -o %T | grep -qvx idle; then break; fi
    sleep 0.1
done
echo booted
while :; do sleep 1000 & wait; done # PID 1 reaps
'
