#!/usr/bin/env python3
"""The main job: Debian's kernel boots on exeunt, loads its own kvm_intel, runs kvm_vmm, powers off - twice.

Both runs must end with exit status 0, print every marker in order and nothing that a kernel prints when it
is unhappy, and leave the same serial output and the same trace, byte for byte. The report of a failure ends
with the tail of the serial output; everything stays in the working directory.
"""
import argparse
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

KERNEL_COMMAND_LINE = "console=ttyS0 earlyprintk=ttyS0,115200 panic=-1"
TAIL_LINES = 40
EXIT_STATUS = {2: "bad input", 4: "something is not modelled", 6: "an invariant of exeunt broke",
               8: "the tick limit was reached", 10: "the guest shut down or hung",
               12: "a difference was found"}

# Regular expressions, in the order in which the lines must come.
MARKERS = [
    r"Linux version 6\.1\.",
    r"Run /init as init process",
    r"exeunt-boot: init",
    r"exeunt-boot: kernel 6\.1\.\S+, {cpus} CPUs",
    r"exeunt-boot: vendor module {vendor}",
    r"exeunt-boot: module {module}$",
    r"ok   real mode: exits io 54, mmio 0, hlt 1, other 0",
    r"ok   64-bit mode: exits io 123, mmio 8, hlt 1, other 0",
    r"ok   dirty log, round 2: 300 pages dirty, 0 wrong",
    r"kvm_vmm: [1-9]\d* passed, 0 failed",
    r"exeunt-boot: done status=0",
]
# What must not come.
ALARMS = [r"\bFAIL", r"FAILED$", r"Kernel panic", r"\bBUG:", r"\bOops\b", r"WARNING: CPU:",
          r"general protection fault", r"soft lockup", r"rcu: .*stall", r"unchecked MSR access",
          r"Unable to handle", r"\[Firmware Bug\].*VMX", r"kvm.*unexpected exit", r"vmwrite error|vmread error"]


class Failed(Exception):
    pass


def tail(path):
    if not path.exists():
        return f"(no {path})"
    lines = path.read_text(errors="replace").replace("\r", "").splitlines()
    return "\n".join(f"    | {line}" for line in lines[-TAIL_LINES:]) or "    | (nothing)"


def command(arguments, cpus):
    line = [str(arguments.exeunt), "run", "--cpu", arguments.cpu, "--cpus", str(cpus),
            "--memory", arguments.memory, "--kernel", str(arguments.kernel), "--initrd", str(arguments.initrd), "--append",
            " ".join(filter(None, [KERNEL_COMMAND_LINE, arguments.append])),
            "--serial", "file:serial.txt", "--limit", str(arguments.limit)]
    return line if arguments.no_trace else line + ["--trace", "trace"]


def check_serial(path, cpus, vendor, expected):
    text = path.read_text(errors="replace").replace("\r", "")
    for alarm in ALARMS:
        found = re.search(f"^.*(?:{alarm}).*$", text, re.MULTILINE)
        if found:
            raise Failed(f"{path}: {found.group(0).strip()}")
    position = 0
    for marker in MARKERS:
        pattern = marker.replace("{cpus}", str(cpus)).replace("{vendor}", vendor)
        pattern = pattern.replace("{module}", vendor.replace("-", "_"))
        found = re.compile(pattern, re.MULTILINE).search(text, position)
        if not found:
            raise Failed(f"{path}: no line {pattern!r} after offset {position}")
        position = found.end()
    for pattern in expected:
        if not re.search(pattern, text, re.MULTILINE):
            raise Failed(f"{path}: no line {pattern!r}")


def run(arguments, cpus, folder):
    """One run in a folder of its own; what it writes has relative paths, so that two runs have equal inputs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    line = command(arguments, cpus)
    (folder / "command.txt").write_text(shlex.join(line) + "\n")
    started = time.monotonic()
    with open(folder / "output.txt", "wb") as output:
        try:
            status = subprocess.run(line, cwd=folder, stdin=subprocess.DEVNULL, stdout=output,
                                    stderr=subprocess.STDOUT, timeout=arguments.timeout).returncode
        except subprocess.TimeoutExpired:
            status = None
        except OSError as error:
            raise Failed(f"{arguments.exeunt}: {error.strerror}") from error
    print(f"{folder.name}: status {status}, {time.monotonic() - started:.1f} s", flush=True)
    if status != 0:
        why = "no end in time" if status is None else EXIT_STATUS.get(status, "")
        raise Failed(f"{folder}: exit status {status} ({why})\n{tail(folder / 'output.txt')}")
    check_serial(folder / "serial.txt", cpus, arguments.vendor, arguments.expect)


def files(folder):
    return {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}


def first_difference(one, other):
    for number, (a, b) in enumerate(zip(one.splitlines(), other.splitlines()), 1):
        if a != b:
            return f"line {number}: {a!r} / {b!r}"
    return f"lengths {len(one)} / {len(other)}"


def compare(arguments, one, other):
    first, second = (one / "serial.txt").read_bytes(), (other / "serial.txt").read_bytes()
    if first != second:
        raise Failed(f"the serial outputs of two runs differ: {first_difference(first, second)}")
    if arguments.no_trace:
        return
    traces = files(one / "trace"), files(other / "trace")
    if not traces[0]:
        raise Failed(f"{one / 'trace'}: no trace was written")
    different = [str(name) for name in traces[0].keys() | traces[1].keys()
                 if name not in traces[0] or name not in traces[1]
                 or traces[0][name].read_bytes() != traces[1][name].read_bytes()]
    if different:
        line = [str(arguments.exeunt), "trace", "diff", str(one / "trace"), str(other / "trace")]
        diff = subprocess.run(line, capture_output=True, text=True, check=False)
        raise Failed(f"the traces of two runs differ in {', '.join(sorted(different))}\n"
                     f"{diff.stdout}{diff.stderr}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exeunt", type=Path, required=True, help="the binary under test")
    parser.add_argument("--image", type=Path, required=True, metavar="DIR", help="output of make_image.py")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for what the runs write")
    parser.add_argument("--kernel", type=Path, help="instead of DIR/vmlinuz, e.g. DIR/vmlinux (PVH)")
    parser.add_argument("--cpus", type=int, action="append", help="numbers of CPUs to try (1 and 2)")
    parser.add_argument("--cpu", default="intel-max", metavar="MODEL")
    parser.add_argument("--vendor", default="kvm-intel", choices=("kvm-intel", "kvm-amd"))
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--append", default="", help="added to the kernel command line")
    parser.add_argument("--expect", action="append", default=[], metavar="REGEX",
                        help="some line of the serial output must match it, too; may be repeated")
    parser.add_argument("--limit", type=int, default=60_000_000_000, metavar="TICKS")
    parser.add_argument("--timeout", type=float, default=1200, metavar="SECONDS", help="of one run")
    parser.add_argument("--no-trace", action="store_true")
    parser.add_argument("--once", action="store_true", help="one run, nothing to compare")
    arguments = parser.parse_args()
    arguments.exeunt = arguments.exeunt.resolve()
    arguments.kernel = (arguments.kernel or arguments.image / "vmlinuz").resolve()
    arguments.initrd = (arguments.image / "initrd").resolve()
    arguments.work = arguments.work.resolve()
    for cpus in arguments.cpus or [1, 2]:
        numbers = (1,) if arguments.once else (1, 2)
        folders = [arguments.work / f"cpus{cpus}-run{number}" for number in numbers]
        folder = folders[0]
        try:
            for folder in folders:
                run(arguments, cpus, folder)
            if not arguments.once:
                compare(arguments, *folders)
        except Failed as failure:
            print(f"FAIL {cpus} CPU(s): {failure}\nserial output, the last {TAIL_LINES} lines:\n"
                  f"{tail(folder / 'serial.txt')}\ncommand, in {folder}:\n"
                  f"    {shlex.join(command(arguments, cpus))}")
            return 1
        print(f"ok   {cpus} CPU(s): " + ("" if arguments.once else "both runs the same; ") +
              next(line for line in (folder / "serial.txt").read_text(errors="replace").splitlines()
                   if line.startswith("kvm_vmm:")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
