#!/usr/bin/env python3
"""Checks the shape of source files: small, headers guarded, opened by a sentence, cleanly ended.

usage: scripts/check_files.py [ROOT]
More than 500 lines (tables, .inc, aside) is a warning; all else fails.
"""
import sys
from pathlib import Path

FOLDERS = ['base', 'arch', 'mmu', 'apic', 'devices', 'traces', 'cpu', 'vmx', 'svm', 'machine', 'debug', 'cli', 'tests',
           'scripts', 'cmake']
SOURCES = {'.cpp', '.hpp', '.inc', '.h', '.c'}
LIMIT = 500


def headed(root, path):
    """There is a header of the same name, which says what both model; a test's is in the folder that it mirrors."""
    if path.suffix not in ('.c', '.cpp'):
        return False
    inside = path.relative_to(root)
    mirrored = root / Path(*inside.parts[1:]) if inside.parts[0] == 'tests' else path
    mirrored = mirrored.with_name(mirrored.name.replace('_test.cpp', '.cpp'))
    return any(p.with_suffix(h).exists() for p in (path, mirrored) for h in ('.hpp', '.h'))


def check(path, text, headed):
    lines = text.split('\n')
    if path.suffix == '.hpp' and '#pragma once' not in lines:
        yield f'{path}:1: a header needs #pragma once'
    if not headed and path.suffix in SOURCES and not any(line.startswith(('//', '/*', ';')) for line in lines[:3]):
        yield f'{path}:1: a file begins with a comment that says what it models'
    if lines[-1] != '':
        yield f'{path}:{len(lines)}: no newline at the end'
    for number, line in enumerate(lines, 1):
        if line != line.rstrip():
            yield f'{path}:{number}: white space at the end of the line'
        if '\t' in line:
            yield f'{path}:{number}: tabulator'


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    problems, long_files = [], []
    files = 0
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob('*')):
            if path.suffix not in SOURCES | {'.py', '.cmake'}:
                continue
            files += 1
            text = path.read_text(errors='replace')
            problems += check(path.relative_to(root), text, headed(root, path))
            length = text.count('\n')
            if path.suffix != '.inc' and length > LIMIT:
                long_files.append(f'{path.relative_to(root)}: warning: {length} lines, more than {LIMIT}')
    print('\n'.join(long_files + problems + [f'files: {files}, too long: {len(long_files)}, problems: {len(problems)}']))
    sys.exit(1 if problems else 0)


if __name__ == '__main__':
    main()
