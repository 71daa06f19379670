#!/usr/bin/env python3
"""Builds and runs the tests: as released (preset release: everything, with the boot tests, the slow differential run
and the build for aarch64), with sanitizers (preset dev: unit tests, guests, lint) and the fuzz targets (preset fuzz).

Closes with the line `N passed, N failed`, which counts doctest's test cases where a ctest entry is a
doctest executable and the entry itself where it is not. Exit status 1 when anything failed.
"""
import argparse
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCTEST = re.compile(r'test cases:\s*(\d+)\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed')

# preset, arguments of ctest
STEPS = [
    ('release', ['-LE', '^lint$']),
    ('dev', ['-L', '^(unit|guest|lint)$']),
    ('fuzz', []),
]
QUICK = [
    ('dev', ['-L', '^(unit|guest|lint)$', '-LE', '^slow$']),
]


class Count:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def add(self, preset, case):
        """Counts one testcase element of ctest's JUnit report."""
        status = case.get('status')
        if status == 'disabled':  # one that could not run, for want of its executable or its fixture, has failed
            self.skipped += 1
            return
        output = case.findtext('system-out') or ''
        good = status == 'run'
        summary = DOCTEST.search(output)
        if summary and int(summary[1]) > 0:
            self.passed += int(summary[2])
            self.failed += int(summary[3])
            if not good and int(summary[3]) == 0:
                self.failed += 1
        elif good:
            self.passed += 1
        else:
            self.failed += 1
        if not good:
            self.failures.append(f'{preset}: {case.get("name")}')


def run(command, quiet=False):
    print('+ ' + ' '.join(command), flush=True)
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL if quiet else None).returncode == 0


def test(preset, arguments, jobs, count):
    """Configures, builds and tests one preset; a build that fails counts as one failure."""
    build = ROOT / 'build' / preset
    if not (run(['cmake', '--preset', preset], quiet=True)
            and run(['cmake', '--build', '--preset', preset, '--parallel', str(jobs)])):
        count.failed += 1
        count.failures.append(f'{preset}: build')
        return
    report = build / 'ctest.xml'
    report.unlink(missing_ok=True)
    run(['ctest', '--test-dir', str(build), '--output-on-failure', '--no-tests=ignore', '-j', str(jobs),
         '--test-output-truncation', 'head', '--output-junit', str(report)] + arguments)
    if not report.exists():
        count.failed += 1
        count.failures.append(f'{preset}: ctest wrote no report')
        return
    for case in ElementTree.parse(report).getroot().iter('testcase'):
        count.add(preset, case)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help='preset dev only, without the label slow')
    parser.add_argument('--jobs', type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    start = time.monotonic()
    count = Count()
    for preset, arguments in QUICK if options.quick else STEPS:
        test(preset, arguments, options.jobs, count)
    minutes, seconds = divmod(int(time.monotonic() - start), 60)
    print(f'\ntests took {minutes} min {seconds} s'
          + (f'; {count.skipped} entries of ctest skipped' if count.skipped else ''))
    for failure in count.failures:
        print(f'failed: {failure}')
    print(f'{count.passed} passed, {count.failed} failed', flush=True)
    sys.exit(1 if count.failed else 0)


if __name__ == '__main__':
    main()
