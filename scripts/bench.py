#!/usr/bin/env python3
"""Runs the micro guests (tests/guests/micro) on exeunt and its peers, side by side in one session.

Per phase of a guest it prints operations per CPU second (medians over the rounds, the emulators taking
turns) and exeunt's ratios to the peers, then the geometric mean of each group. Each phase ends with a
checksum, which must be equal on every emulator.

Peers that are not installed are left out; one that fails or lacks a phase is reported and does not end
the run. Exit status 1: checksums differ, or exeunt failed a guest.
"""
import argparse
import json
import math
import os
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLAIN = ['alu', 'mem', 'call', 'fp', 'exc', 'io']
GUESTS = PLAIN + ['svm', 'vmx']
# Checksums that differ between the peers themselves: last bits of transcendentals, highest CPUID leaf.
CHECKSUM_MAY_DIFFER = {'x87_trans', 'op_cpuid'}
# CPU seconds; what is shorter is not measured but guessed.
SHORTEST = 0.002
# One exit and one entry each. QEMU TCG has no VT-x, so a vmx phase is held against the svm phase beside it.
ROUND_TRIPS = {
    'vmx_cpuid_noept': 'svm_cpuid_nonp', 'vmx_cpuid_ept': 'svm_cpuid_npt', 'vmx_ept_viol': 'svm_npf',
    'vmx_vmcall': 'svm_vmmcall', 'vmx_io': 'svm_ioio', 'vmx_msr': 'svm_msr', 'vmx_hlt': 'svm_hlt',
    'vmx_full': 'svm_full', 'vmx_inject': 'svm_inject',
}


@dataclass
class Phase:
    """One phase of one run."""
    operations: int
    instructions: int
    cpu: float = 0.0
    checksum: str = ''


@dataclass
class Run:
    """One guest once on one emulator."""
    emulator: str
    guest: str
    phases: dict = field(default_factory=dict)
    skipped: dict = field(default_factory=dict)
    cpu: float = 0.0
    failure: str = ''


class Emulator:
    """How to start one emulator; command() gives the argument list and, if the serial port is not
    standard output, the FIFO that it is written to."""
    name = ''

    def missing(self):
        """Why this emulator cannot be run here, or None."""
        return None

    def command(self, guest, image, append, directory):
        raise NotImplementedError


class Exeunt(Emulator):
    name = 'exeunt'

    def __init__(self, path, extra):
        self.path = path
        self.extra = extra

    def missing(self):
        return None if os.access(self.path, os.X_OK) else f'{self.path} is not there (make build)'

    def command(self, guest, image, append, directory):
        return [self.path, 'run', '--kernel', image, '--append', append, '--memory', '256M', '--serial', 'stdio',
                '--cpu', 'amd-max' if guest == 'svm' else 'intel-max'] + self.extra, None


class Qemu(Emulator):
    name = 'qemu'
    binary = 'qemu-system-x86_64'

    def missing(self):
        return None if shutil.which(self.binary) else 'Debian package qemu-system-x86 is not installed'

    def command(self, guest, image, append, directory):
        return [self.binary, '-machine', 'pc', '-m', '256', '-accel', 'tcg', '-cpu', 'max', '-display', 'none',
                '-monitor', 'none', '-serial', 'stdio', '-no-reboot', '-nodefaults',
                '-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-kernel', image, '-append', append], None


class Bochs(Emulator):
    name = 'bochs'
    needs = {'bochs': 'bochs', 'grub-mkrescue': 'grub-common', 'xorriso': 'xorriso', 'mformat': 'mtools'}
    files = {'/usr/share/bochs/BIOS-bochs-latest': 'bochsbios', '/usr/share/bochs/VGABIOS-lgpl-latest': 'vgabios',
             '/usr/lib/grub/i386-pc': 'grub-pc-bin'}

    def missing(self):
        packages = [package for program, package in self.needs.items() if not shutil.which(program)]
        packages += [package for path, package in self.files.items() if not os.path.exists(path)]
        return f'Debian packages not installed: {" ".join(packages)}' if packages else None

    def command(self, guest, image, append, directory):
        menu = directory / 'iso/boot/grub'
        menu.mkdir(parents=True)
        shutil.copy(image, directory / 'iso/boot/guest.elf')
        (menu / 'grub.cfg').write_text(
            f'set timeout=0\nset default=0\nmenuentry m {{ multiboot /boot/guest.elf {append}\n boot }}\n')
        subprocess.run(['grub-mkrescue', '-o', directory / 'guest.iso', directory / 'iso'], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        fifo = directory / 'com1'
        os.mkfifo(fifo)
        template = (ROOT / 'tests/guests/micro/bochsrc.in').read_text()
        (directory / 'bochsrc').write_text(template.format(
            cpu='ryzen' if guest == 'svm' else 'corei7_skylake_x', iso=directory / 'guest.iso', com1=fifo,
            log=directory / 'bochs.log'))
        # Debian builds it with the debugger, which waits for a command before it starts.
        (directory / 'debugger').write_text('continue\n')
        return ['bochs', '-q', '-f', str(directory / 'bochsrc'), '-rc', str(directory / 'debugger')], fifo


def cpu_seconds(pid):
    """CPU time that all threads of a child have used so far, or None once it has ended. The child is stopped
    meanwhile: the kernel accounts for a running thread only at its ticks, some milliseconds apart."""
    try:
        os.kill(pid, signal.SIGSTOP)
        state = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if state.si_code != os.CLD_STOPPED:
            return None
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        total = 0
        for thread in os.listdir(f'/proc/{pid}/task'):
            with open(f'/proc/{pid}/task/{thread}/schedstat') as schedstat:
                total += int(schedstat.read().split()[0])
        return total / 1e9
    except (OSError, ValueError, IndexError):
        return None
    finally:
        try:
            os.kill(pid, signal.SIGCONT)
        except OSError:
            pass


def has_ended(process):
    """Whether the process is a zombie; it is not reaped, so that its CPU time can still be had."""
    try:
        with open(f'/proc/{process.pid}/stat') as stat:
            return stat.read().rsplit(')', 1)[1].split()[0] == 'Z'
    except OSError:
        return True


class Report:
    """Reads the guest's lines (@B, @E, @S, @F, @X; see boot.inc) and takes the time at each."""

    def __init__(self, run, pid):
        self.run = run
        self.pid = pid
        self.buffer = b''
        self.phase = None
        self.begin = None
        self.open_end = None
        self.closed = False

    def feed(self, data):
        self.buffer += data
        while b'\n' in self.buffer:
            line, self.buffer = self.buffer.split(b'\n', 1)
            line = line.decode('latin-1')
            if '@' in line:
                self.line(line[line.index('@'):].strip())

    def line(self, line):
        now = cpu_seconds(self.pid)
        if found := re.match(r'@B (\S+) n=(\d+) insns=(\d+)', line):
            # Read together with its end, a phase was over before anybody looked: it has no time.
            self.phase, self.begin = found[1], None if b'@E' in self.buffer else now
            self.run.phases[self.phase] = Phase(int(found[2]), int(found[3]))
        elif found := re.match(r'@E (\S+) tsc=\w+ sum=(\w+)', line):
            phase = self.run.phases.get(found[1])
            if phase is None or found[1] != self.phase:
                self.run.failure = f'unexpected {line}'
                return
            phase.checksum = found[2]
            self.open_end = phase
            if now is not None and self.begin is not None:
                phase.cpu = now - self.begin
            self.phase = None
        elif found := re.match(r'@S (\S+)\s*(.*)', line):
            self.run.skipped[found[1]] = found[2]
        elif line.startswith('@F'):
            self.run.failure, self.closed = line, True
        elif line.startswith('@X'):
            self.closed = True

    def end(self, total):
        """total: CPU seconds of the whole run. The process may be gone before its last phase was timed."""
        if self.open_end and self.begin is not None and self.open_end.cpu < 0.5 * (total - self.begin):
            self.open_end.cpu = total - self.begin
        if self.phase:
            self.run.phases.pop(self.phase)
        if not self.closed and not self.run.failure:
            self.run.failure = f'ended in {self.phase or "no phase"} without @X'


def high_priority():
    """Lines are to be timed when they come, not when a busy machine gets round to it. Needs root."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    except OSError:
        pass


def ordinary_priority():
    if os.getpriority(os.PRIO_PROCESS, 0) == -10:
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def measure(emulator, guest, image, append, timeout):
    """One run of one guest."""
    run = Run(emulator.name, guest)
    directory = Path(tempfile.mkdtemp(prefix='exeunt-bench.'))
    try:
        command, fifo = emulator.command(guest, str(image), append, directory)
        with open(directory / 'stderr', 'wb') as errors:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors, preexec_fn=ordinary_priority,
                                       stdout=subprocess.DEVNULL if fifo else subprocess.PIPE)
        source = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK) if fifo else process.stdout.fileno()
        os.set_blocking(source, False)
        report = Report(run, process.pid)
        follow(process, source, fifo is not None, report, timeout)
        if fifo:
            os.close(source)
        else:
            process.stdout.close()
        finish(process, report)
        if run.failure:
            lines = (directory / 'stderr').read_text(errors='replace').strip().splitlines()
            run.failure += f' (status {process.returncode})' + (f': {lines[-1][:160]}' if lines else '')
    except (OSError, subprocess.SubprocessError) as error:
        run.failure = str(error)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return run


def follow(process, source, is_fifo, report, timeout):
    """Reads the serial port until the guest's report is closed or the emulator ends."""
    end = time.monotonic() + timeout
    while not report.closed:
        left = end - time.monotonic()
        if left <= 0:
            report.run.failure = f'no end after {timeout:.0f} s'
            return
        ready, _, _ = select.select([source], [], [], min(left, 0.25))
        data = None
        if ready:
            try:
                data = os.read(source, 65536)
            except BlockingIOError:
                continue
        if data:
            report.feed(data)
        elif has_ended(process) or (data == b'' and not is_fifo):
            return
        elif data == b'':
            time.sleep(0.01)    # nobody has opened the FIFO yet


def finish(process, report):
    """Gives the emulator two seconds to end by itself, and takes its CPU time."""
    end = time.monotonic() + 2
    while not has_ended(process) and time.monotonic() < end:
        time.sleep(0.01)
    if not has_ended(process):
        process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    report.run.cpu = usage.ru_utime + usage.ru_stime
    report.end(report.run.cpu)


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(value) for value in values)) if values else None


def si(rate):
    """Operations per second in four places."""
    if rate is None:
        return '-'
    for factor, unit in ((1e6, ' M'), (1e3, ' k'), (1, '  ')):
        if rate >= factor:
            return f'{rate / factor:.2f}{unit}'
    return f'{rate:.2f}  '


def ratio(value):
    return '-' if value is None else f'{value:.2f}x' if value < 100 else f'{value:.0f}x'


class Results:
    """Medians per emulator and phase, over all rounds."""

    def __init__(self, runs):
        self.runs = runs
        self.rates = {}
        self.order = {}
        samples = {}
        for run in runs:
            for name, phase in run.phases.items():
                self.order.setdefault(name, run.guest)
                if phase.checksum and phase.cpu >= SHORTEST:
                    samples.setdefault((run.emulator, name), []).append(phase.operations / phase.cpu)
        for key, values in samples.items():
            self.rates[key] = statistics.median(values)

    def rate(self, emulator, phase):
        return self.rates.get((emulator, phase))

    def ratio(self, one, other, phase, other_phase=None):
        a, b = self.rate(one, phase), self.rate(other, other_phase or phase)
        return a / b if a and b else None

    def mean(self, one, other, pairs):
        """Geometric mean of the ratios over (phase, phase of the other), and how many of them there are."""
        ratios = [self.ratio(one, other, phase, other_phase) for phase, other_phase in pairs]
        ratios = [value for value in ratios if value]
        return geometric_mean(ratios), len(ratios)

    def phases(self, guests):
        return [phase for guest in guests for phase, owner in self.order.items() if owner == guest]

    def groups(self):
        """Names of the groups and the pairs of phases that belong to each."""
        for guest in PLAIN:
            yield guest, [(phase, phase) for phase in self.phases([guest])]
        yield 'all six', [(phase, phase) for phase in self.phases(PLAIN)]
        yield 'svm round trips', [(phase, phase) for phase in ROUND_TRIPS.values()]
        yield 'vmx round trips', [(phase, phase) for phase in ROUND_TRIPS]

    def checksum_differences(self):
        seen = {}
        for run in self.runs:
            for name, phase in run.phases.items():
                if phase.checksum:
                    seen.setdefault(name, {}).setdefault(phase.checksum, set()).add(run.emulator)
        for name, sums in seen.items():
            if len(sums) > 1:
                text = ', '.join(f'{value} ({" ".join(sorted(who))})' for value, who in sorted(sums.items()))
                yield name, text


def table(header, rows):
    widths = [max(len(row[i]) for row in [header] + rows) for i in range(len(header))]
    for row in [header] + rows:
        print('  '.join(cell.ljust(width) if i < 2 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths))).rstrip())


def print_results(results, names, guests, main):
    """The table per phase and the table per group; `main` is compared with the others."""
    peers = [name for name in names if name != main] if main in names else []
    header = ['guest', 'phase'] + [f'{name}/s' for name in names] + [f'{main}/{peer}' for peer in peers]
    rows = []
    for phase in results.phases(guests):
        rows.append([results.order[phase], phase] + [si(results.rate(name, phase)) for name in names]
                    + [ratio(results.ratio(main, peer, phase)) for peer in peers])
    print('\nOperations per CPU second (medians)')
    table(header, rows)
    if not peers:
        return
    rows = []
    for group, pairs in results.groups():
        means = [results.mean(main, peer, pairs) for peer in peers]
        if any(count for _, count in means):
            rows.append([group, str(len(pairs))] + [ratio(mean) for mean, _ in means]
                        + ['' if all(count in (0, len(pairs)) for _, count in means) else 'phases missing'])
    if 'qemu' in peers:
        mean, count = results.mean(main, 'qemu', list(ROUND_TRIPS.items()))
        if count:
            rows.append(['vmx / qemu svm', str(count)] + [ratio(mean) if peer == 'qemu' else '' for peer in peers]
                        + ["vmx round trips at qemu's svm rate"])
    print('\nGeometric means of the ratios')
    table(['group', 'phases'] + [f'{main}/{peer}' for peer in peers] + [''], rows)


def verdict(results, main, guests):
    """Prints failures, skipped phases and differing checksums; returns whether all is well."""
    good = True
    failures, skips = {}, {}
    for run in results.runs:
        if run.failure:
            failures.setdefault((run.emulator, run.guest, run.failure), 0)
            failures[run.emulator, run.guest, run.failure] += 1
        for phase, reason in run.skipped.items():
            skips.setdefault((run.emulator, reason), {})[phase] = None
    print()
    for (emulator, reason), phases in skips.items():
        print(f'skipped by {emulator} ({reason}): {" ".join(phases)}')
    for (emulator, guest, failure), times in failures.items():
        print(f'FAILED {emulator} {guest}, {times} times: {failure}')
        good = good and emulator != main
    differ = dict(results.checksum_differences())
    for phase, text in differ.items():
        known = phase in CHECKSUM_MAY_DIFFER
        print(f'checksums of {phase} differ{", as known" if known else ""}: {text}')
        good = good and known
    if not any(phase not in CHECKSUM_MAY_DIFFER for phase in differ):
        print(f'checksums are equal in all {len(results.phases(guests))} phases'
              + (' but those known to differ' if differ else ''))
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5, help='runs of each guest on each emulator (default 5)')
    parser.add_argument('--guests', default=','.join(GUESTS), help=f'of {",".join(GUESTS)}')
    parser.add_argument('--div', type=int, default=2, help='divides every iteration count (default 2)')
    parser.add_argument('--json', help='keep all measurements in this file')
    parser.add_argument('--emulators', default='exeunt,qemu,bochs', help='of exeunt,qemu,bochs')
    parser.add_argument('--exeunt', default=str(ROOT / 'build/release/exeunt'), help='executable to measure')
    parser.add_argument('--exeunt-options', default='', help='further options of exeunt run')
    parser.add_argument('--images', default=str(ROOT / 'build/release/guests/micro'), help='folder of NAME.elf')
    parser.add_argument('--timeout', type=float, default=600, help='seconds for one run (default 600)')
    options = parser.parse_args()

    guests = options.guests.split(',')
    known = {e.name: e for e in (Exeunt(options.exeunt, options.exeunt_options.split()), Qemu(), Bochs())}
    wrong = [guest for guest in guests if guest not in GUESTS]
    wrong += [name for name in options.emulators.split(',') if name not in known]
    if wrong or options.rounds < 1 or options.div < 1:
        parser.error(f'not known or not positive: {" ".join(wrong) or "--rounds, --div"}')
    emulators = []
    for name in options.emulators.split(','):
        if reason := known[name].missing():
            print(f'left out: {name}: {reason}')
        else:
            emulators.append(known[name])
    absent = [guest for guest in guests if not (Path(options.images) / f'{guest}.elf').exists()]
    if absent or not emulators:
        sys.exit(f'bench: no images of {" ".join(absent)} in {options.images} (cmake --build --preset release '
                 '--target guests)' if absent else 'bench: no emulator to measure')

    high_priority()
    runs = []
    for number in range(options.rounds):
        for guest in guests:
            for emulator in emulators:
                print(f'round {number + 1} of {options.rounds}: {guest} on {emulator.name}', file=sys.stderr, flush=True)
                runs.append(measure(emulator, guest, Path(options.images) / f'{guest}.elf', f'div={options.div}',
                                    options.timeout))
    results = Results(runs)
    names = [emulator.name for emulator in emulators]
    print_results(results, names, guests, 'exeunt')
    good = verdict(results, 'exeunt', guests)
    if options.json:
        with open(options.json, 'w') as file:
            json.dump({'div': options.div, 'rounds': options.rounds, 'runs': [
                {'emulator': run.emulator, 'guest': run.guest, 'failure': run.failure, 'cpu': run.cpu,
                 'skipped': run.skipped, 'phases': {name: vars(phase) for name, phase in run.phases.items()}}
                for run in runs]}, file, indent=1)
    sys.exit(0 if good else 1)


if __name__ == '__main__':
    main()
