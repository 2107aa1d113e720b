#!/bin/bash
# boot-systemd.sh FOLDER NAME INSTALLATION: run this machine's systemd as PID 1 of its own namespaces.
#
# Its root is an overlay of ours, so that nothing it writes is kept; INSTALLATION is at /opt/rtlaunch
# in it. Its cgroups are called NAME. /proc/sys is read-only: systemd would rewrite the host's
# settings. The caller ends it by SIGRTMIN+4 to the leader, our child, and removes FOLDER and cgroups.
set -eu
folder=$1 name=$2 installation=$3

mkdir -p "$folder/upper" "$folder/root"
truncate --size=512M "$folder/upper.img"
mkfs.ext4 -q -F "$folder/upper.img" # the upper layer must not lie on the lower one's file system

for hierarchy in /sys/fs/cgroup/*/; do
    mkdir -p "$hierarchy$name"
    for file in cpuset.cpus cpuset.mems; do # a cpuset without these takes no process (cpuset(7))
        if [ -e "$hierarchy$name/$file" ]; then cat "$hierarchy$file" >"$hierarchy$name/$file"; fi
    done
    if [ -e "$hierarchy$name/cpu.rt_runtime_us" ]; then # 0 by default: no real-time policy for anybody
        echo 100000 >"$hierarchy$name/cpu.rt_runtime_us"
    fi
    echo $BASHPID >"$hierarchy$name/cgroup.procs"
done

export folder installation
exec unshare --mount --pid --fork --cgroup --uts --ipc --net --propagation private bash -euc '
mount -o loop "$folder/upper.img" "$folder/upper"
mkdir -p "$folder/upper/up" "$folder/upper/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper/up,workdir=$folder/upper/work" "$folder/root"
mkdir -p "$folder/root/opt/rtlaunch"
mount --bind "$installation" "$folder/root/opt/rtlaunch"
cd "$folder/root"

mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
for where in dev run tmp; do mount -t tmpfs tmpfs $where; done
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd

mount -t tmpfs tmpfs sys/fs/cgroup
for controllers in cpu,cpuacct cpuset memory devices freezer blkio pids; do
    mkdir "sys/fs/cgroup/$controllers"
    mount -t cgroup -o "$controllers" cgroup "sys/fs/cgroup/$controllers" 2>/dev/null ||
        rmdir "sys/fs/cgroup/$controllers" # it is v2 here, or not there
done
mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 sys/fs/cgroup/unified

rm -rf etc/systemd/system/*.wants # only what a test starts
: >etc/machine-id
: >etc/fstab
printf "[Service]\nExecStart=/bin/true\n" >etc/systemd/system/systemd-sysctl.service
mkdir .old
pivot_root . .old
umount -l .old
ip link set lo up
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=rig \
    /lib/systemd/systemd --show-status=no --log-target=null systemd.unit=basic.target
'
