#!/usr/bin/env python3
"""Checks that includes follow the layers: a folder includes only what its row lists (see README.md).

usage: scripts/check_layers.py [ROOT]
Also: quoted includes are written from the repository root, and a library stays where it is wrapped.
"""
import re
import sys
from pathlib import Path

MACHINE_PARTS = {'vmx', 'svm', 'cpu', 'mmu', 'apic', 'devices', 'traces', 'arch', 'base'}
EVERYTHING = MACHINE_PARTS | {'machine', 'debug', 'diagnosis', 'cli', 'tests'}

# folder: what it may include besides itself
LAYERS = {
    'base': set(),
    'arch': {'base'},
    'mmu': {'arch', 'base'},
    'apic': {'arch', 'base'},
    'devices': {'arch', 'base'},
    'traces': {'arch', 'base'},
    'cpu': {'mmu', 'arch', 'base'},
    'vmx': {'cpu', 'mmu', 'apic', 'arch', 'base'},
    'svm': {'cpu', 'mmu', 'apic', 'arch', 'base'},
    'machine': MACHINE_PARTS,
    'debug': MACHINE_PARTS | {'machine'},
    'diagnosis': MACHINE_PARTS | {'machine'},
    'cli': EVERYTHING - {'tests'},
    'tests': EVERYTHING,
}

# first part of a header's name: the folders that may include it
LIBRARIES = {
    'Zydis': {'cpu', 'debug', 'cli', 'tests'},
    'mpfr.h': {'cpu', 'tests'},
    'CLI': {'cli'},
    'doctest': {'tests'},
    'unicorn': {'tests'},
    'benchmark': {'tests'},
}

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
FREESTANDING = 'tests/guests/'      # programs for the emulated machine have includes of their own


def check(root, path):
    """Yields one line per include of `path` that breaks a rule."""
    folder = path.parts[0]
    for number, line in enumerate((root / path).read_text(errors='replace').splitlines(), 1):
        found = INCLUDE.match(line)
        if not found:
            continue
        quote, name = found.groups()
        first = name.split('/')[0]
        where = f'{path}:{number}: '
        if quote == '<':
            if first in LIBRARIES and folder not in LIBRARIES[first]:
                yield f'{where}<{name}> belongs in {", ".join(sorted(LIBRARIES[first]))}'
        elif first not in LAYERS or '/' not in name:
            yield f'{where}"{name}" is not written from the repository root'
        elif first != folder and first not in LAYERS[folder]:
            allowed = ', '.join(sorted(LAYERS[folder])) or 'nothing else'
            yield f'{where}{folder} may not include {first} (but {allowed})'


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    problems = []
    files = 0
    for folder in LAYERS:
        for path in sorted((root / folder).rglob('*')):
            relative = path.relative_to(root)
            if path.suffix in ('.cpp', '.hpp', '.inc', '.h') and not str(relative).startswith(FREESTANDING):
                files += 1
                problems += check(root, relative)
    print('\n'.join(problems + [f'layers: {files} files, {len(problems)} problems']))
    sys.exit(1 if problems else 0)


if __name__ == '__main__':
    main()
