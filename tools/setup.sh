#!/bin/sh
# setup.sh GOAL - make .venv and see that what GOAL (demo, test, rigs, lint, bench) needs of the system is there.
#
# Why: `make GOAL` works in a fresh clone, on a machine where nothing was installed by hand. As root it
# installs what is missing; as anybody else it prints the line that would, and ends with 1.
# It must not start a daemon, write outside .venv but through apt-get, or touch what is there already.
set -eu
goal=$1

die() {
    echo "setup: $*" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# The system's own first: the python3 on PATH may be a wrapper that other users cannot run, and the
# tests start rtlaunch as other users.
choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" || die "PYTHON=$PYTHON is no Python 3.11 or newer"
        echo "$PYTHON"
        return
    fi
    for candidate in /usr/bin/python3 python3; do
        if new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    die "no Python 3.11 or newer: neither /usr/bin/python3 nor python3 on PATH; name one: make $goal PYTHON=/path/to/python3"
}

has_command() {
    command -v "$1" >/dev/null
}

has_header() {
    echo "#include <$1>" | cc -E - >/dev/null 2>&1
}

# has_library PATTERN: by the name of its file.
has_library() {
    # shellcheck disable=SC2086  # a pattern
    set -- /usr/lib/*/$1
    [ -e "$1" ]
}

# A C library for i386, and what links with it.
makes_32_bit() {
    echo 'int main(void) { return 0; }' | cc -m32 -x c - -o /dev/null 2>/dev/null
}

has_python_headers() {
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

has_venv() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null
}

# need PACKAGE CHECK...: note the Debian package unless the check succeeds.
need() {
    package=$1
    shift
    "$@" || missing="$missing $package"
}

needed_to_build() {
    need gcc has_command cc
    need libc6-dev has_header asm/unistd.h
    need libcap-dev has_header sys/capability.h # python-prctl is compiled against it
    # Only Debian's own interpreter takes its parts from Debian's packages.
    case $python in
    /usr/bin/python3)
        need python3-dev has_python_headers
        need python3-venv has_venv
        ;;
    *)
        has_python_headers || die "$python has no Python.h, which python-prctl needs"
        has_venv || die "$python has no ensurepip or venv"
        ;;
    esac
}

needed_to_test() {
    need redis-tools has_command redis-check-rdb # the server too: the package redis-server would start it
    need rt-tests has_command cyclictest
    need musl-tools has_command musl-gcc
    need strace has_command strace
    need libcap2-bin has_command setcap
    # The shipped profiles are tried on the real things: 116 MB and 81 MB to fetch.
    need default-jdk-headless has_command javac
    need golang-go has_command go
    # One of each kind of program for the matrix: 20 MB to fetch.
    need nodejs has_command node
    # The allocators that --heap knows by name.
    need libjemalloc2 has_library libjemalloc.so.2
    need libtcmalloc-minimal4 has_library libtcmalloc_minimal.so.4
    need libmimalloc-dev has_library 'libmimalloc.so.[0-9]*' # the library's own name has its version
    # The shim for the other machine is compiled, looked at, and run.
    if [ "$(uname -m)" = x86_64 ]; then
        need gcc-aarch64-linux-gnu has_command aarch64-linux-gnu-gcc
        need libc6-dev-arm64-cross test -e /usr/aarch64-linux-gnu/include/stdio.h
        need qemu-user has_command qemu-aarch64
        # Not gcc-multilib, which apt cannot install beside the cross compiler.
        need "gcc-$(cc -dumpversion | cut -d. -f1)-multilib" makes_32_bit
    fi
}

# What the rigs of tests/rigs run on; systemd itself is never installed for them.
needed_to_rig() {
    need redis-tools has_command redis-check-rdb # a server that says READY=1, for the drop-in
    need strace has_command strace
    need podman has_command podman # 115 MB with what follows; none of it is started
    need conmon has_command conmon
    need crun has_command crun
    need runc has_command runc
    need catatonit has_command catatonit
    # docker.io itself is unpacked by the tests: installed, it would start its daemon.
    need libdevmapper1.02.1 has_library libdevmapper.so.1.02.1
    need tini has_command tini
    if [ "$(uname -m)" = x86_64 ]; then
        need qemu-system-x86 has_command qemu-system-x86_64
        need e2fsprogs has_command mke2fs
    fi
    # A cluster of one node. Where systemd runs, Debian's munge starts its daemon; Slurm's do not without a slurm.conf.
    need slurm-wlm has_command slurmctld
    need slurm-wlm-basic-plugins has_library slurm-wlm/auth_munge.so
    need munge has_command munged
    # Two MPIs beside each other, by names that no alternative changes.
    need openmpi-bin has_command mpirun.openmpi
    need libopenmpi-dev has_command mpicc.openmpi
    need mpich has_command mpiexec.mpich # 29 MB to fetch, with a Fortran that its compiler wants
    need libmpich-dev has_command mpicc.mpich
    need iproute2 has_command ip
}

needed_to_compare() {
    need tini has_command tini
    need libhugetlbfs-bin has_command hugectl
    need strace has_command strace
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 "$@" </dev/null >/dev/null
}

install_missing() {
    [ -n "$missing" ] || return 0
    line="apt-get install --no-install-recommends$missing"
    has_command apt-get || die "missing here, by Debian's package names:$missing"
    [ "$(id -u)" = 0 ] || die "missing system packages; as root:  $line"
    echo "setup: $line" >&2
    # Once more with fresh lists: a new machine has none, or old ones.
    # shellcheck disable=SC2086  # a list of package names
    apt_get install --no-install-recommends $missing 2>/dev/null ||
        { apt_get update && apt_get install --no-install-recommends $missing; } ||
        die "this failed:  $line"
}

# What the tests fetch and do not install is looked up in apt's lists; a new machine has none.
need_lists() {
    has_command apt-get && [ "$(id -u)" = 0 ] || return 0
    apt-cache show docker.io >/dev/null 2>&1 || apt_get update || true
}

refuse_colon() {
    case $PWD in
    *:*) die "the path of this checkout has a colon ($PWD), and Python makes no virtual environment there: move it" ;;
    esac
}

# One that was interrupted halfway, or whose interpreter is gone, is made anew.
make_venv() {
    if ! [ -e .venv/complete ] || ! [ -x .venv/bin/python ]; then
        rm -rf .venv
        "$python" -m venv .venv
        touch .venv/complete
    fi
}

# redis-server is this program by another name (redis.c, main); the package that has the link has the daemon.
link_redis() {
    has_command redis-server || ln -sf "$(command -v redis-check-rdb)" .venv/bin/redis-server
}

refuse_colon
python=$(choose_python)
missing=
needed_to_build
case $goal in
test) needed_to_test ;;
rigs) needed_to_rig ;;
bench) needed_to_compare ;;
esac
install_missing
if [ "$goal" = rigs ]; then
    need_lists
fi
make_venv
if [ "$goal" = test ]; then
    link_redis
fi
