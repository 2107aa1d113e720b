#!/bin/bash
# open-engine.sh NAME [DAEMON...]: hold open a place where an engine leaves no trace, until standard input ends.
#
# Its own mounts: /run, /dev/shm and what podman and docker keep are in memory, since unmounting a container
# would wait for a disk (syncfs). /proc/sys is read-only, and there is no cgroup2 (beside v1, crun takes it
# for "hybrid" and refuses). Its own network, which has nothing. Its own root of the cgroups, which the
# caller finds as NAME in each hierarchy, and removes. A daemon is started in pids of its own, so that it
# ends with this script, and all containers with it. Says "open" once all of that is there.
set -eu
name=$1
shift

for hierarchy in /sys/fs/cgroup/*/; do
    mkdir -p "$hierarchy$name"
    for file in cpuset.cpus cpuset.mems; do # a cpuset without these takes no process (cpuset(7))
        if [ -e "$hierarchy$name/$file" ]; then cat "$hierarchy$file" >"$hierarchy$name/$file"; fi
    done
    echo $BASHPID >"$hierarchy$name/cgroup.procs"
done

own=(--mount --cgroup --net --ipc --propagation private)
if [ $# -gt 0 ]; then own+=(--pid --fork --kill-child); fi
exec unshare "${own[@]}" bash -euc '
[ $# -eq 0 ] || mount -t proc proc /proc
mkdir -p /var/lib/containers /var/lib/docker
for where in /run /dev/shm /var/lib/containers /var/lib/docker; do mount -t tmpfs tmpfs $where; done # 200 MB at most
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs tmpfs /sys/fs/cgroup
while IFS=: read -r id controllers path; do
    case "$id$controllers" in
    *name=* | 0) continue ;; # systemd and its like, and v2
    esac
    mkdir "/sys/fs/cgroup/$controllers"
    mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers"
    for one in $(echo "$controllers" | tr , " "); do
        [ -e "/sys/fs/cgroup/$one" ] || ln -s "$controllers" "/sys/fs/cgroup/$one"
    done
done </proc/self/cgroup
[ -d /sys/fs/cgroup/memory ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup # no v1: it is all v2
ip link set lo up
[ $# -eq 0 ] || "$@" </dev/null >&2 &
echo open
read -r _ || true
' bash "$@"
