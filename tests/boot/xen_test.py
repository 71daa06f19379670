#!/usr/bin/env python3
"""Debian's Xen boots on exeunt, from multiboot 2, with Debian's kernel as dom0, up to a shell on the serial line.

The shell is asked what it runs on and answers; then it powers the machine off. Xen is fetched with apt (as a file;
nothing is installed); kernel and initrd are those of make_image.py.
"""
import argparse
import gzip
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

from make_image import fail, unpacked

PACKAGE = "xen-hypervisor-4.17-amd64"
XEN = "console=com1 com1=115200,8n1 loglvl=info noreboot sync_console dom0_mem=384M,max:384M"
DOM0 = "console=hvc0 vmm.shell"
PROMPT = re.compile(rb"/ # (?:\x1b\[6n)?\Z")  # busybox asks the terminal where its cursor is
# What the shell is asked, and what must stand in the answer.
QUESTIONS = [
    ("cat /sys/hypervisor/type /sys/hypervisor/version/major", rb"^xen\s+4\s*$"),
    ("echo the answer is $((6 * 7))", rb"^the answer is 42\s*$"),
    ("cat /sys/hypervisor/guest_type", rb"^PV\s*$"),
    ("cat /sys/hypervisor/uuid", rb"^00000000-0000-0000-0000-000000000000\s*$"),  # dom0
]
ALARMS = re.compile(rb"^.*(?:Kernel panic|\bBUG:|\bOops\b|Panic on CPU|FATAL|WARNING: CPU:).*$", re.MULTILINE)


class Console:
    """The serial line of a running machine: what came, and a way to wait for more."""

    def __init__(self, command, folder, seconds):
        self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.deadline = time.monotonic() + seconds
        self.text = b""
        self.arrived = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while data := self.process.stdout.read1(65536):
            with self.arrived:
                self.text += data.replace(b"\r", b"")
                self.arrived.notify_all()
        with self.arrived:
            self.arrived.notify_all()

    def wait(self, pattern, start):
        with self.arrived:
            while not (found := pattern.search(self.text, start)):
                left = self.deadline - time.monotonic()
                if left <= 0 or (not self.reader.is_alive() and self.process.poll() is not None):
                    self.fail(f"nothing matches {pattern.pattern!r}")
                self.arrived.wait(min(left, 1))
            return found

    def fail(self, why):
        self.process.kill()
        tail = b"\n".join(self.text.splitlines()[-40:]).decode(errors="replace")
        sys.exit(f"FAIL {why}; the last lines:\n{tail}")

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()


def xen_image(folder):
    """Xen's multiboot 2 image, not compressed."""
    downloads = folder / "packages"
    downloads.mkdir(parents=True, exist_ok=True)
    tree = unpacked(PACKAGE, PACKAGE, downloads)
    packed = sorted(tree.glob("boot/xen-*-amd64.gz"))
    if not packed:
        fail(f"{PACKAGE} holds no boot/xen-*-amd64.gz")
    image = folder / "xen"
    image.write_bytes(gzip.decompress(packed[0].read_bytes()))
    return image


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exeunt", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True, metavar="DIR", help="output of make_image.py")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for what the run writes")
    parser.add_argument("--cpu", default="intel-max", metavar="MODEL")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--xen", default="", help="added to Xen's command line")
    parser.add_argument("--dom0", default="", help="added to dom0's command line")
    parser.add_argument("--timeout", type=float, default=1200, metavar="SECONDS")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    image = arguments.image.resolve()
    command = [str(arguments.exeunt.resolve()), "run", "--cpu", arguments.cpu, "--cpus", str(arguments.cpus),
               "--memory", "1G", "--kernel", str(xen_image(image)), "--append", f"{XEN} {arguments.xen}".strip(),
               "--initrd", f"{image / 'vmlinuz'} {DOM0} {arguments.dom0}".strip(), "--initrd", str(image / "initrd"),
               "--serial", "stdio"]  # no limit of ticks: idle time passes as fast as the shell waits
    console = Console(command, arguments.work, arguments.timeout)
    console.wait(re.compile(rb"^\(XEN\) Xen version 4\.", re.MULTILINE), 0)
    at = console.wait(PROMPT, 0).end()
    for question, answer in QUESTIONS:
        console.type(question)
        console.wait(re.compile(answer, re.MULTILINE), at)
        at = console.wait(PROMPT, at).end()
    console.type("poweroff -f")
    try:
        status = console.process.wait(max(1, console.deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        console.fail("no power-off in time")
    console.reader.join()
    (arguments.work / "serial.txt").write_bytes(console.text)
    if status != 0:
        console.fail(f"exit status {status} of {shlex.join(command)}")
    if alarm := ALARMS.search(console.text):
        console.fail(alarm[0].decode(errors="replace"))
    print(f"ok   {arguments.cpu}, {arguments.cpus} CPU(s): a shell in Xen's dom0")


if __name__ == "__main__":
    main()
