#!/usr/bin/env python3
"""Runs a demo (vmx_demo.elf, svm_demo.elf) on exeunt twice: every step passes, and both runs leave the same report and trace."""
import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ALL_GOOD = 1  # isa-debug-exit: 2 * 0 + 1


def run(arguments, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    line = [str(arguments.exeunt), "run", "--cpu", arguments.cpu, "--memory", "64M", "--kernel",
            str(arguments.kernel), "--serial", "file:serial.txt", "--trace", "trace", "--limit", "2000000000"]
    result = subprocess.run(line, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            check=False)
    serial = folder / "serial.txt"
    report = serial.read_text(errors="replace").replace("\r", "") if serial.exists() else ""
    all_passed = re.search(r"^\w+_demo: \d+ passed, 0 failed", report, re.MULTILINE)
    if result.returncode != ALL_GOOD or not all_passed:
        failures = re.findall(r"^FAIL.*\n(?:  .*\n)*", report, re.MULTILINE)
        print("".join(failures) or "\n".join(report.splitlines()[-15:]))
        print(report.splitlines()[-1] if report else "(no report)")
        sys.exit(f"{folder}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
    return report


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exeunt", type=Path, required=True)
    parser.add_argument("--kernel", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cpu", required=True)
    arguments = parser.parse_args()
    arguments.exeunt, arguments.kernel = arguments.exeunt.resolve(), arguments.kernel.resolve()
    folders = [(arguments.work / name).resolve() for name in ("run1", "run2")]
    reports = [run(arguments, folder) for folder in folders]
    if reports[0] != reports[1]:
        sys.exit("the reports of two runs differ")
    traces = [files(folder / "trace") for folder in folders]
    if not traces[0] or traces[0] != traces[1]:
        different = [str(name) for name in traces[0].keys() | traces[1].keys()
                     if traces[0].get(name) != traces[1].get(name)]
        sys.exit(f"the traces of two runs differ or are empty: {', '.join(different)}")
    print(reports[0].splitlines()[-1])


if __name__ == "__main__":
    main()
