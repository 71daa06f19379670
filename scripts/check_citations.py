#!/usr/bin/env python3
"""Checks the form of citations: manual, volume, number, and the title where it is cited first.

usage: scripts/check_citations.py [ROOT]
Right:  SDM 3C 26.3.1.4 "Checks on Guest RIP and RFLAGS"   SDM 3C Table 27-7   SDM 3D App. C   SDM 1 ch. 5
        SDM 2B RDTSC   APM 2 15.25 "Nested Paging"
Wrong:  SDM Vol. 3C, section 26.3   Intel SDM 26.3   APM 15.25   (see docs/manuals.md)
The words alone ("the SDM leaves it undefined") are not a citation.
"""
import re
import sys
from pathlib import Path

FOLDERS = ['base', 'arch', 'mmu', 'apic', 'devices', 'traces', 'cpu', 'vmx', 'svm', 'machine', 'debug', 'cli', 'tests']
SUFFIXES = {'.cpp', '.hpp', '.inc', '.h', '.c', '.S', '.asm', '.json'}

NUMBER = (r'(?:\d+(?:\.\d+)*'                                   # 26.3.1.4, and 15 for a whole chapter
          r'|[A-H](?:\.\d+)+'                                   # a section of an appendix
          r'|(?:Table|Figure|Tables|Figures) (?:\d+|[A-H])-\d+'
          r'|App\. [A-H](?:\.\d+)*'
          r'|ch\. \d+'
          r'|"'                                                 # a title that needs no number
          r'|[A-Z][A-Za-z0-9/]*)')                              # an instruction of the reference
CITATION = {
    'SDM': re.compile(r' (?:1|2|2A|2B|2C|2D|3|3A|3B|3C|3D|4) ' + NUMBER),
    'APM': re.compile(r' [1-5] ' + NUMBER),
}
NAME = re.compile(r'\b(SDM|APM)\b')
# What follows the name when a citation was meant.
MEANT = re.compile(r"[ ,]*(?:[Vv]ol|[Ss]ection|[Ss]ect?\.|[Cc]hapter|§|\d|[Tt]able|[Ff]igure|App\b|Appendix)")


def check(path, text):
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        for name in NAME.finditer(line):
            rest = line[name.end():]
            if number < len(lines):  # a comment may break between the volume and the number
                rest += ' ' + lines[number].lstrip(' /*#;')
            if MEANT.match(rest) and not CITATION[name[1]].match(rest):
                yield f'{path}:{number}: not a citation: "{line[name.start():name.start() + 60].strip()}"'


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    problems = []
    citations = 0
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob('*')):
            if path.suffix in SUFFIXES:
                text = path.read_text(errors='replace')
                citations += sum(bool(CITATION[name[1]].match(text, name.end())) for name in NAME.finditer(text))
                problems += check(path.relative_to(root), text)
    print('\n'.join(problems + [f'citations: {citations}, of wrong form: {len(problems)}']))
    sys.exit(1 if problems else 0)


if __name__ == '__main__':
    main()
