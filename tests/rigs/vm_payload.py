"""What is tried in the virtual machine, by its Python alone: one line of JSON for each thing.

It judges nothing: test_vm.py does. A thing that raises says so in its line, and the next is tried.
"""

import json
import os
import subprocess
import sys
import time
import traceback

RTLAUNCH = "/opt/rtlaunch/bin/rtlaunch"
BIG, STATIC = "/rig/big", "/rig/big-static"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
EIGHT_MIB = 8 << 20
UNITS = "/run/systemd/system"

THINGS = {}


def thing(function):
    """Have a function tried, and what it returns told by its name."""
    THINGS[function.__name__] = function
    return function


def call(*words, **how):
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, **how)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def launch(*words, before=()):
    """Run rtlaunch; return what it printed, and its report."""
    path = f"/tmp/report-{time.monotonic_ns()}"
    os.makedirs(path, mode=0o777)
    os.chmod(path, 0o777)
    told = call(*before, RTLAUNCH, "--report", f"{path}/r.json", *words)
    until = time.monotonic() + 10  # in exec mode it is another process that writes it
    told["report"] = report_of(f"{path}/r.json")
    while not told["report"].get("complete") and time.monotonic() < until:
        time.sleep(0.05)
        told["report"] = report_of(f"{path}/r.json")
    return told


def unit(name, *lines):
    """Run a oneshot unit to its end; return what systemd and the kernel say of it."""
    with open(f"{UNITS}/{name}.service", "w", encoding="utf-8") as file:
        head = ["[Service]", "Type=oneshot", "RemainAfterExit=no"]
        head += [f"StandardOutput=file:/tmp/{name}.out", f"StandardError=file:/tmp/{name}.err"]
        file.write("\n".join([*head, *lines, ""]))
    call("systemctl", "daemon-reload")
    started = call("systemctl", "start", f"{name}.service")
    shown = call("systemctl", "show", "-p", "Result,ExecMainStatus", f"{name}.service")
    told = dict(line.split("=", 1) for line in shown["out"].splitlines())
    for end in ("out", "err"):
        with open(f"/tmp/{name}.{end}", encoding="utf-8") as file:
            told[end] = file.read()
    told["report"] = report_of(f"/tmp/{name}.json")
    return told | {"started": started["err"]}


def report_of(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError:
        return {}


@thing
def machine():
    with open("/proc/self/status", encoding="utf-8") as file:
        status = dict(line.split(":\t") for line in file.read().splitlines() if ":\t" in line)
    with open("/sys/fs/cgroup/cgroup.controllers", encoding="utf-8") as file:
        controllers = file.read().split()
    version = call(RTLAUNCH, "--version", "-v")["out"]
    return {
        "kernel": os.uname().release, "controllers": controllers, "version": version,
        "caps": int(status["CapEff"], 16),
    }  # fmt: skip


@thing
def memlock_max():
    limited = ["prlimit", f"--memlock={EIGHT_MIB}:{EIGHT_MIB}"]
    return launch("--memlock", "max", "--", BIG, before=limited)


@thing
def unit_without_capability():
    return unit(
        "bare", "User=nobody", "LimitMEMLOCK=infinity", "CapabilityBoundingSet=",
        "NoNewPrivileges=yes", f"ExecStart={RTLAUNCH} --report /tmp/bare.json -- {BIG}",
    )  # fmt: skip


@thing
def unit_of_8_mib():
    return unit(
        "small", "User=nobody", "LimitMEMLOCK=8M", "CapabilityBoundingSet=",
        f"ExecStart={RTLAUNCH} --report /tmp/small.json -- {BIG}",
    )  # fmt: skip


@thing
def cgroup_refusal():
    return unit("tight", "MemoryMax=24M", f"ExecStart={RTLAUNCH} --report /tmp/tight.json -- {BIG}")


@thing
def cgroup_kill():
    return unit("killed", "MemoryMax=24M", f"ExecStart={BIG}")


@thing
def cgroup_room():
    line = f"ExecStart={RTLAUNCH} --report /tmp/room.json -- {BIG}"
    return unit("room", "MemoryMax=96M", line)


@thing
def fit_promise():
    measured = call(RTLAUNCH, "fit", "--json", "--", BIG)
    found = json.loads(measured["out"].splitlines()[-1])["recommended"]
    limit = found["memlock_bytes"]
    tried = {}
    for name, size in {"recommended": limit, "a quarter less": limit * 3 // 4}.items():
        before = ["prlimit", f"--memlock={size}:{size}", *NOBODY, "--bounding-set=-all"]
        tried[name] = launch("--", BIG, before=before)
    return {"recommended": found, "tried": tried}


@thing
def ways():
    cases = {
        "preload": ["--", BIG],
        "static": ["--", STATIC],
        "ptrace": ["--via", "ptrace", "--", BIG],
        "onfault": ["--lock", "current,future,onfault", "--", BIG],
        "thp": ["--thp", "never", "--", BIG],
        "heap": ["--heap", "16M", "--", BIG],
        "hugepages": ["--hugepages", "2M:4", "--", BIG],
        "exec": ["--mode", "exec", "--", BIG],
        "proc": ["--watch", "proc", "--", BIG],
        "chain": ["--", "sh", "-c", f"exec {BIG}"],
        "user": ["--user", "nobody", "--", BIG],
        "children": ["--children", "all", "--", "sh", "-c", f"{BIG}; true"],
    }
    return {"cases": {name: launch(*words) for name, words in cases.items()}}


@thing
def running():
    process = subprocess.Popen([BIG, "stay"], stdout=subprocess.PIPE)
    process.stdout.readline()
    pid = str(process.pid)
    told = {name: call(RTLAUNCH, name, pid) for name in ("lock", "status", "unlock")}
    told["status after"] = call(RTLAUNCH, "status", pid)
    process.kill()
    process.wait()
    return told


def main():
    for name, function in THINGS.items():
        began = time.monotonic()
        try:
            told = function()
        except Exception:
            told = {"raised": traceback.format_exc()}
        told |= {"name": name, "seconds": round(time.monotonic() - began, 1)}
        print(json.dumps(told), flush=True)
    print('{"name": "end", "seconds": 0}', flush=True)


if __name__ == "__main__":
    sys.exit(main())
