#!/usr/bin/env python3
"""babeltrace2 reads recordings: of a whole run, with the same events as `exeunt trace export`, and of killed runs.

A killed run leaves whole packets; nothing but what happened since the last second is missing.
"""
import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PACKET_BYTES = 4096


def fail(text):
    sys.exit(f'FAIL {text}')


def output(*command):
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        fail(f'{" ".join(command)}: status {result.returncode}\n{result.stdout[-2000:]}{result.stderr[-2000:]}')
    return result.stdout


def check_readable(exeunt, trace):
    """Both readers see the same events with the same fields. How many there are."""
    ours = [json.loads(line) for line in output(exeunt, 'trace', 'export', '--format', 'jsonl', str(trace)).splitlines()]
    theirs = output('babeltrace2', '--clock-cycles', '--no-delta', str(trace)).splitlines()
    if len(ours) != len(theirs):
        fail(f'{trace}: {len(theirs)} events by babeltrace2, {len(ours)} by exeunt')
    for number, (record, line) in enumerate(zip(ours, theirs), 1):
        # [00000000000000057519] vm_entry: { cpu = 0, ..., rip = 0x105750, ... }
        found = re.fullmatch(r'\[(\d+)\] (\w+): \{ (.*) \}', line)
        if not found:
            fail(f'{trace}: record {number}: {line!r}')
        fields = dict(field.split(' = ', 1) for field in found[3].split(', '))
        values = {name: value.strip('"') if value.startswith('"') else int(value, 0) for name, value in fields.items()}
        expected = {name: value for name, value in record.items() if name not in ('event', 'tick', 'reason_name')}
        if int(found[1]) != record['tick'] or found[2] != record['event'] or values != expected:
            fail(f'{trace}: record {number}: {line!r} by babeltrace2, {record} by exeunt')
    listed = len(output(exeunt, 'trace', 'list', str(trace)).splitlines()) - 1
    if listed != len(ours):
        fail(f'{trace}: {listed} lines by trace list, {len(ours)} records')
    return len(ours)


def killed_run(arguments, guest, size, trace):
    """Kills a run as soon as its trace has at least `size` bytes."""
    process = subprocess.Popen([arguments.exeunt, 'run', '--memory', '64M', '--kernel', guest, '--serial', 'none',
                                '--trace', str(trace)], stdin=subprocess.DEVNULL)
    stream = trace / 'ctf' / 'stream'
    start = time.monotonic()
    while process.poll() is None and time.monotonic() - start < 300:
        if stream.exists() and stream.stat().st_size >= size:
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        fail(f'{trace}: the guest that should have gone on ended with status {process.returncode}')


def check_killed(arguments, guest, size):
    """What a killed run left is whole packets, which all readers take."""
    trace = arguments.work / f'killed-{Path(guest).stem}-{size}'
    killed_run(arguments, guest, size, trace)
    found = (trace / 'ctf' / 'stream').stat().st_size
    if found < size or found % PACKET_BYTES != 0:
        fail(f'{trace}: a stream of {found} bytes is not whole packets')
    count = check_readable(arguments.exeunt, trace)
    text = output(arguments.exeunt, 'replay', str(trace))
    if not text.startswith(f'identical as far as it goes: {count} records, '):
        fail(f'{trace}: replay: {text}')
    print(f'{trace.name}: {found} bytes, {count} events; {text}', end='', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--exeunt', required=True)
    parser.add_argument('--kernel', required=True, help='vmx_demo.elf')
    parser.add_argument('--exits', required=True, help='a guest whose VM exits go on for long: micro/vmx.elf')
    parser.add_argument('--quiet', required=True, help='a guest without VM exits that goes on for long: micro/alu.elf')
    parser.add_argument('--work', type=Path, required=True, metavar='DIR')
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)

    whole = arguments.work / 'whole'
    subprocess.run([arguments.exeunt, 'run', '--memory', '64M', '--kernel', arguments.kernel, '--serial', 'none',
                    '--trace', str(whole)], stdin=subprocess.DEVNULL, check=False)
    count = check_readable(arguments.exeunt, whole)
    if count < 100:
        fail(f'{whole}: only {count} events')
    print(f'{whole.name}: {count} events, the same by babeltrace2 and exeunt', flush=True)

    # Exits without end, killed inside the first packets and some thousand exits later.
    for size in (1, 300_000, 1_000_000):
        check_killed(arguments, arguments.exits, size)
    # A few state hashes only: the packet that is being filled reaches the file once a native second.
    check_killed(arguments, arguments.quiet, 1)


if __name__ == '__main__':
    main()
