"""The journal of a real systemd: one entry at the proof, one at the end, each finding and fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rtlaunch.report.journal import MESSAGE_IDS
from tests.host import wait_until

if TYPE_CHECKING:
    from tests.rigs.services import Service

CATALOG = Path(__file__).resolve().parents[2] / "systemd" / "rtlaunch.catalog"

# Maps a file, has the kernel drop it from memory, and reads it again: major faults.
FAULTING = """\
import mmap, os, time
path = "/opt/cold"
with open(path, "wb") as file:
    file.write(os.urandom(1 << 20))
    os.fsync(file.fileno())
with open(path, "rb") as file:
    cold = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
def touch():
    return sum(cold[at] for at in range(0, len(cold), 4096))
while True:  # what the kernel has just put on a list of its own it does not drop
    touch()
    cold.madvise(21)  # MADV_PAGEOUT
    time.sleep(0.1)
"""


def entries(service: Service, kind: str) -> list[dict[str, str]]:
    """Return the unit's entries of one kind, by its documented id."""
    service.manager.run("journalctl", "--sync", check=False)
    match = f"MESSAGE_ID={MESSAGE_IDS[kind]}"
    words = ("journalctl", "-u", service.name, match, "-o", "json", "--no-pager", "--all")
    said = service.manager.run(*words, check=False)
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def test_proof_and_end_are_one_entry_each(service: Service) -> None:
    """With the report's numbers, under the unit's own name, though it is the side process' word."""
    service.install("Type=notify")
    service.start()
    wait_until(lambda: entries(service, "proof"), "no entry at the proof")
    pid = service.show("MainPID")
    service.stop()
    report = service.found()
    (proof,), (end,) = entries(service, "proof"), entries(service, "end")
    assert proof["RTLAUNCH_LOCKED_BYTES"] == str(report["lock"]["locked_bytes"])
    assert (proof["RTLAUNCH_TARGET_PID"], proof["RTLAUNCH_LOCKED"]) == (pid, "1")
    assert (proof["RTLAUNCH_MODE"], proof["RTLAUNCH_VIA"]) == ("exec", "preload")
    assert (end["RTLAUNCH_MAJOR"], end["RTLAUNCH_VERDICT"]) == ("0", "clean")
    assert {each["_SYSTEMD_UNIT"] for each in (proof, end)} == {service.name}
    assert {each["SYSLOG_IDENTIFIER"] for each in (proof, end)} == {"rtlaunch"}
    assert proof["MESSAGE"].startswith("locked ")


def test_a_refusal_is_one_entry_with_its_code(service: Service) -> None:
    """Lines and all: what, who set it, what to do."""
    service.install("Type=exec", "DynamicUser=yes", "LimitMEMLOCK=64K")
    service.start(check=False)
    wait_until(lambda: entries(service, "refused"), "no entry for the refusal")
    (refused,) = entries(service, "refused")
    assert (refused["RTLAUNCH_CODE"], refused["PRIORITY"]) == ("memlock-limit", "3")
    assert "\n  set by: " in refused["MESSAGE"]
    assert json.loads(refused["RTLAUNCH_VALUES"])["soft"] == 64 << 10


def test_faults_of_a_running_service_are_entries(service: Service) -> None:
    """Though the side process has let go of the unit's streams by then."""
    service.manager.write("/opt/faulting.py", FAULTING)
    service.install("Type=exec", options="--lock current",
                    command="/usr/bin/python3 /opt/faulting.py")  # fmt: skip
    service.start()
    wait_until(lambda: entries(service, "fault"), "no entry for a fault")
    fault = entries(service, "fault")[0]
    assert (fault["PRIORITY"], fault["_SYSTEMD_UNIT"]) == ("4", service.name)
    service.stop()
    (end,) = entries(service, "end")
    assert int(end["RTLAUNCH_MAJOR"]) > 0
    assert (end["RTLAUNCH_VERDICT"], end["PRIORITY"]) == ("faulted", "4")


def test_the_catalog_explains_them(service: Service) -> None:
    """journalctl -x, with the shipped catalog: the fields are filled in."""
    service.manager.write("/usr/local/lib/systemd/catalog/rtlaunch.catalog", CATALOG.read_text())
    service.manager.run("journalctl", "--update-catalog")
    service.install("Type=notify")
    service.start()
    pid = service.show("MainPID")
    service.stop()
    service.found()
    service.manager.run("journalctl", "--sync", check=False)
    said = service.manager.run("journalctl", "-x", "-u", service.name, "--no-pager")
    assert f"Subject: {pid} was locked, and its main() begins" in said
    assert f"Subject: {pid} has ended: clean" in said


@pytest.mark.parametrize("options", ["--log-format text", "--quiet"])
def test_who_wants_none_gets_none(service: Service, options: str) -> None:
    """Text as it was asked for by name; and errors alone with -q."""
    service.install("Type=notify", options=options)
    service.start()
    service.stop()
    service.found()
    assert entries(service, "proof") == entries(service, "end") == []
