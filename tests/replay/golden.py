#!/usr/bin/env python3
"""Compares the VM exits of a bundled hypervisor with its golden trace, field by field.

usage: golden.py --exeunt FILE --kernel FILE --cpu MODEL --work DIR [--regenerate]

The hypervisor is compiled where the test runs, and compilers differ. So the golden trace has what the
processor decides and the compiler does not: FIELDS below is the one list of it.

--regenerate writes the golden trace anew. That is right when steps of the hypervisor were added, removed or
changed, or when the manual says that an old value was wrong; read the difference line by line before it is
committed. A golden trace that is regenerated to make a test pass proves nothing.
"""
import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[2] / 'traces' / 'golden'

# By event: the fields that do not depend on where the compiler put code and data. No ticks, RIP, addresses.
FIELDS = {
    'vm_exit': ['reason', 'reason_name', 'vendor', 'instruction_length', 'instruction_information',
                'interruption_information', 'interruption_error', 'idt_vectoring_information', 'idt_vectoring_error'],
    'vm_entry': ['vendor', 'launch', 'interruption_information', 'interruption_error', 'instruction_length'],
    'vm_entry_failure': ['reason', 'reason_name', 'vendor', 'instruction_error', 'qualification', 'check'],
    'violation': ['vendor', 'rule', 'field'],
    'state': [],
    'end': ['status', 'reason'],
}
# The exit qualification is an address, or a displacement that may be one, but for these basic exit reasons: task
# switch, CR access, DR access, I/O, APIC access, virtualized EOI, EPT violation, APIC write.
QUALIFIED = {9, 28, 29, 30, 44, 45, 48, 56}
# EXITINFO1 of an SVM guest never is one in the demo; EXITINFO2 may be, but for nested page faults and AVIC's exits.
SECOND_QUALIFIED = {0x400, 0x401, 0x402}
# An exception's is a linear address for #PF only.
EXCEPTION, PAGE_FAULT = 0, 14


def reduced(record):
    """What the golden trace keeps of a record; fields that are 0 or empty are left out."""
    out = {'event': record['event']}
    fields = list(FIELDS[record['event']])
    if record['event'] == 'vm_exit':
        svm = record['vendor'] == 1
        reason = record['reason'] & 0xFFFF
        vector = record['interruption_information'] & 0xFF
        if svm or reason in QUALIFIED or (reason == EXCEPTION and vector != PAGE_FAULT):
            fields.append('qualification')
        if svm and reason in SECOND_QUALIFIED:
            fields.append('qualification2')
    out.update({field: record[field] for field in fields if record.get(field)})
    return out


def run(arguments):
    """The records of a run, reduced."""
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    exeunt = str(arguments.exeunt.resolve())
    subprocess.run([exeunt, 'run', '--cpu', arguments.cpu, '--memory', '64M',
                    '--kernel', str(arguments.kernel.resolve()), '--serial', 'none', '--trace', 'trace', '--limit', '2000000000'], cwd=arguments.work, stdin=subprocess.DEVNULL,
                   check=False)
    text = subprocess.run([exeunt, 'trace', 'export', '--format', 'jsonl', 'trace'], cwd=arguments.work,
                          stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line) for line in text.splitlines()]


def difference(number, golden, record):
    """How record and golden differ, or nothing."""
    found = reduced(record) if record else None
    if golden == found:
        return None
    if golden is None or found is None:
        return f'record {number}: {"golden" if found is None else "run"} only: {golden or found}'
    fields = sorted(f for f in golden.keys() | found.keys() if golden.get(f) != found.get(f))
    return f'record {number}, tick {record["tick"]}: ' + '; '.join(
        f'{f}: golden {golden.get(f, 0)!r}, run {found.get(f, 0)!r}' for f in fields)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--exeunt', type=Path, required=True)
    parser.add_argument('--kernel', type=Path, required=True, help='the hypervisor, NAME.elf')
    parser.add_argument('--cpu', required=True)
    parser.add_argument('--work', type=Path, required=True, metavar='DIR')
    parser.add_argument('--regenerate', action='store_true', help='write the golden trace')
    arguments = parser.parse_args()
    file = GOLDEN / f'{arguments.kernel.stem}.jsonl'
    records = run(arguments)
    if arguments.regenerate:
        file.write_text(''.join(json.dumps(reduced(record)) + '\n' for record in records))
        print(f'{file}: {len(records)} records')
        return
    golden = [json.loads(line) for line in file.read_text().splitlines()]
    count = max(len(golden), len(records))
    golden += [None] * (count - len(golden))
    records += [None] * (count - len(records))
    differences = [d for number, pair in enumerate(zip(golden, records), 1) if (d := difference(number, *pair))]
    for line in differences[:20]:
        print(line)
    if differences:
        sys.exit(f'{len(differences)} of {count} records differ from {file}')
    print(f'{count} records as in {file}')


if __name__ == '__main__':
    main()
