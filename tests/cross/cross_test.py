#!/usr/bin/env python3
"""A run is the same on every native machine: exeunt built for aarch64, under qemu-user, against the native one.

The bundled hypervisor must leave the same serial output and the same recording, byte for byte; the guest that
computes with x87 and SSE and the one that faults must print the same results and the same time-stamp counts.
The aarch64 executable is built by scripts/cross unless --cross names one.
"""
import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# guest, command line, whether its recording is compared too
GUESTS = [
    ('vmx_demo.elf', '', True),
    ('micro/fp.elf', 'div=2000', True),
    ('micro/exc.elf', 'div=2000', False),
]


def build():
    """The command that runs the aarch64 executable."""
    result = subprocess.run([ROOT / 'scripts' / 'cross'], stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        sys.exit('scripts/cross failed')
    return shlex.split(result.stdout.strip().splitlines()[-1])


def run(command, kernel, append, folder):
    """One run in a folder of its own; its status and all files that it left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    line = command + ['run', '--memory', '64M', '--kernel', str(kernel), '--append', append, '--serial',
                      'file:serial.txt', '--trace', 'trace', '--limit', '2000000000']
    result = subprocess.run(line, cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            check=False)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}
    return (result.returncode, result.stderr), files


def compare(name, here, there, files):
    """What differs, in lines for people."""
    if here[0] != there[0]:
        yield f'{name}: status and messages: {here[0]} here, {there[0]} there'
    for file in files or sorted(here[1].keys() | there[1].keys()):
        a, b = here[1].get(file), there[1].get(file)
        if a == b:
            continue
        yield f'{name}: {file} differs'
        if a is not None and b is not None and file == 'serial.txt':
            for x, y in zip(a.splitlines(), b.splitlines()):
                if x != y:
                    yield f'    {x!r} here, {y!r} there'
                    break


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--exeunt', type=Path, required=True, help='native executable')
    parser.add_argument('--guests', type=Path, required=True, metavar='DIR')
    parser.add_argument('--work', type=Path, required=True, metavar='DIR')
    parser.add_argument('--cross', metavar='COMMAND', help='command that runs the aarch64 executable')
    arguments = parser.parse_args()
    there = shlex.split(arguments.cross) if arguments.cross else build()
    here = [str(arguments.exeunt.resolve())]
    problems = []
    for guest, append, traced in GUESTS:
        kernel = (arguments.guests / guest).resolve()
        name = Path(guest).stem
        folders = [(arguments.work / f'{name}-{where}').resolve() for where in ('here', 'there')]
        results = [run(command, kernel, append, folder) for command, folder in zip((here, there), folders)]
        different = list(compare(name, *results, None if traced else ['serial.txt']))
        problems += different
        if 'trace/ctf/stream' not in results[0][1] or not results[0][1].get('serial.txt'):
            problems.append(f'{name}: left nothing to compare')
        if different and traced:
            diff = subprocess.run(here + ['trace', 'diff'] + [str(f / 'trace') for f in folders], capture_output=True,
                                  text=True, check=False)
            problems.append(diff.stdout + diff.stderr)
        print(f'{name}: ' + ('different' if different else 'identical') + f', status {results[0][0][0]}', flush=True)
    if problems:
        sys.exit('\n'.join(problems))


if __name__ == '__main__':
    main()
