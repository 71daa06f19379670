#!/usr/bin/env python3
"""`exeunt explain` on a recording of the bundled hypervisor: what the trace does not hold comes out of a replay.

usage: explain_test.py --exeunt FILE --kernel FILE --work DIR
"""
import argparse
import json
import shutil
import subprocess
from pathlib import Path

EPT_VIOLATION, EPT_MISCONFIGURATION = 48, 49


class Recording:
    def __init__(self, arguments):
        self.exeunt = str(arguments.exeunt.resolve())
        self.work = arguments.work
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        subprocess.run([self.exeunt, 'run', '--memory', '64M', '--kernel', str(arguments.kernel.resolve()), '--serial',
                        'none', '--trace', 'trace', '--limit', '2000000000'], cwd=self.work, stdin=subprocess.DEVNULL,
                       check=False)
        text = self.call('trace', 'export', 'trace')
        self.records = [json.loads(line) for line in text.splitlines()]

    def call(self, *arguments, status=0):
        done = subprocess.run([self.exeunt, *arguments], cwd=self.work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False)
        assert done.returncode == status, (arguments, done.returncode, done.stdout)
        return done.stdout

    def find(self, wanted):
        """The number of the first record for which `wanted` holds."""
        return next(number for number, record in enumerate(self.records, 1) if wanted(record))

    def explain(self, number, *more, status=0):
        return self.call('explain', 'trace', '--record', str(number), *more, status=status)


def expect(text, *parts):
    for part in parts:
        assert part in text, f'{part!r} is not in:\n{text}'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--exeunt', type=Path, required=True)
    parser.add_argument('--kernel', type=Path, required=True)
    parser.add_argument('--work', type=Path, required=True)
    recording = Recording(parser.parse_args())

    # A refused entry: the rule, the fields on which it depends, and the VMWRITE.
    refused = recording.find(lambda r: r['event'] == 'vm_entry_failure' and r['check'] == 'controls.nmi_window_exiting')
    text = recording.explain(refused)
    expect(text, 'controls.nmi_window_exiting  SDM 3C 26.2.1.1', 'NMI-window exiting needs virtual NMIs',
           'primary_processor_based_vm_execution_controls (4002H) = 0x',
           'given pin_based_vm_execution_controls (4000H) = 0x', 'written at 0x')
    writer = recording.records[refused]['writer_rip']
    expect(text, f'{writer:#x}')
    failure = json.loads(recording.explain(refused, '--format', 'json'))
    assert failure['violated'][0]['fields'][1]['condition'], failure

    # The whole VMCS at that moment, which `check` refuses for the same reason.
    fields = recording.explain(refused, '--fields', '--format', 'json')
    assert json.loads(fields)['vmcs']['guest_cr0'].startswith('0x'), fields
    (recording.work / 'vmcs.json').write_text(fields)
    expect(recording.call('check', 'vmcs.json', status=12), 'controls.nmi_window_exiting', 'JSON dump of a VMCS')
    expect(recording.explain(refused, '--fields'), 'guest_cr0', '6800H', 'written at 0x')

    # A violation: both walks down to the entry that does not allow the access.
    violation = recording.find(lambda r: r['event'] == 'vm_exit' and r['reason'] == EPT_VIOLATION
                               and r['qualification'] & 0x180 == 0x180)
    record = recording.records[violation - 1]
    text = recording.explain(violation)
    expect(text, f"linear address {record['guest_linear']:#x}", 'PML4E', 'EPT PML4E', 'memory type',
           f"EPT violation at guest-physical address {record['guest_physical']:#x}",
           f"exit qualification {record['qualification']:#x}", 'because: the EPT')
    expect(recording.explain(violation, '--writers'), 'written at 0x')
    elsewhere = recording.explain(violation, '--linear', hex(record['rip']), '--access', 'execute')
    expect(elsewhere, 'fetch from linear address', 'translates to physical address', 'effective WB')
    expect(recording.explain(violation, '--guest-physical', hex(record['guest_physical'])), 'EPT violation')

    # A misconfiguration: what is wrong with the entry.
    misconfiguration = recording.find(lambda r: r['event'] == 'vm_exit' and r['reason'] == EPT_MISCONFIGURATION)
    expect(recording.explain(misconfiguration), 'EPT misconfiguration at guest-physical address',
           'write permission without read permission')

    # An address where there is no guest.
    end = len(recording.records)
    expect(recording.explain(end, '--linear', '0', status=2), 'expected a VM exit, a VM entry or its failure')
    print(f'{end} records; a refused entry, a violation and a misconfiguration explained')


if __name__ == '__main__':
    main()
