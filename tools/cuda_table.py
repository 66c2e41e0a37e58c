#!/usr/bin/env python3
"""Keeps docs/GPU_KERNELS.md: what each CUDA kernel takes of a multiprocessor, as ptxas says it.

usage: cuda_table.py --write BUILD   write the table anew from BUILD/device/cuda/*.ptxas
       cuda_table.py --check BUILD   exit 1 if a kernel is new or gone, or takes more registers,
                                     stack, spilled bytes or shared memory than the table says
       cuda_table.py --selftest      plant each of these faults in a scratch folder and see it found
The Makefile keeps ptxas's words beside each object. --check exits with 77 if they are of another
compiler than the table's: its numbers would be other ones. Standard library only; names are made
readable by c++filt.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

TABLE = os.path.join('docs', 'GPU_KERNELS.md')
SOURCES = os.path.join('device', 'cuda')
ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)\w?'")
FRAME = re.compile(r'(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads')
USED = re.compile(r'Used (\d+) registers')
SHARED = re.compile(r'(\d+) bytes smem')
BOUND = re.compile(r'\bKERNEL\(([^()]+)\)\s*(\w+)\s*\(')
CONSTANT = re.compile(r'\b([A-Z][A-Z0-9_]*)\s*=\s*(\d+)\b')
OTHER_COMPILER = 77
TAKEN = ('registers', 'bytes of stack', 'bytes of spills', 'bytes of shared memory')
HEAD = """# Kernels of the CUDA device

Registers a thread; stack frame, spilled registers and static shared memory (bytes; dynamic shared
memory is not counted) of every kernel of device/cuda, as ptxas gives them, a / b / c where GPUs
differ; threads: the most that a block of it may have. `make test` fails when a kernel is new or
gone, or takes more than stands here; `make cuda-table` writes this file anew. Spills and stack
frames live in memory, cached: none is wanted, and a kernel that starts to have one is worth a look
before the table takes it in.

"""


def demangled(names):
    """Names as they are written: template arguments kept, types of arguments left out."""
    text = subprocess.run(['c++filt'], input='\n'.join(names), text=True, check=True,
                          capture_output=True).stdout.split('\n')
    return {name: plain(text[i]) for i, name in enumerate(names)}


def plain(signature):
    text = re.sub(r'\((?:anonymous namespace|[A-Za-z0-9_]+)\)(?=[\w(-])', '', signature)
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == '<') - (letter == '>')
        if letter == '(' and depth == 0:
            text = text[:at]
            break
    text = re.sub(r'^(?:static )?void ', '', text)
    return text.replace('__nv_bfloat16', 'bf16').replace(', ', ' ')


def bounds(root):
    """Launch bound of each kernel's name, as a number where the sources give one."""
    text = ''
    for folder, _, names in os.walk(os.path.join(root, SOURCES)):
        for name in sorted(names):
            if name.endswith(('.cu', '.cuh', '.h')):
                with open(os.path.join(folder, name), encoding='utf-8') as file:
                    text += file.read()
    constants = dict(CONSTANT.findall(text))
    return {kernel: number_of(bound, constants) for bound, kernel in BOUND.findall(text)}


def number_of(bound, constants):
    """`WARPS * WARP` as a number, without blocks behind a comma; a template's own as text."""
    bound = bound.split(',')[0]
    text = re.sub(r'[A-Z][A-Z0-9_]*', lambda m: constants.get(m.group(), m.group()), bound)
    if not re.fullmatch(r'\d+( ?\* ?\d+)*', text):
        return text
    product = 1
    for factor in text.split('*'):
        product *= int(factor)
    return str(product)


def read_build(build):
    """{(file, kernel): {arch: (registers, stack, spills, shared)}}"""
    found = {}
    folder = os.path.join(build, SOURCES)
    for name in sorted(os.listdir(folder) if os.path.isdir(folder) else []):
        if not name.endswith('.ptxas'):
            continue
        if not os.path.exists(os.path.join(SOURCES, name[:-6] + '.cu')):
            continue  # what an earlier build left
        with open(os.path.join(folder, name), encoding='utf-8') as file:
            for line in file:
                entry = ENTRY.search(line)
                frame, used = FRAME.search(line), USED.search(line)
                if entry:
                    key, values = (name[:-6], entry.group(1)), [0, 0, 0, 0]
                    found.setdefault(key, {})[int(entry.group(2))] = values
                elif frame:
                    values[1] = int(frame.group(1))
                    values[2] = int(frame.group(2)) + int(frame.group(3))
                elif used:
                    values[0] = int(used.group(1))
                    shared = SHARED.search(line)
                    values[3] = int(shared.group(1)) if shared else 0
    names = demangled(sorted({mangled for _, mangled in found}))
    return {(file, names[mangled]): archs for (file, mangled), archs in found.items()}


def compiler():
    home = os.environ.get('CUDA_HOME', '/usr/local/cuda')
    nvcc = shutil.which('nvcc') or os.path.join(home, 'bin', 'nvcc')
    if not os.path.exists(nvcc):
        return 'unknown'
    text = subprocess.run([nvcc, '--version'], text=True, check=True, capture_output=True).stdout
    return re.search(r'V([\d.]+)', text).group(1)


def joined(values):
    return str(values[0]) if len(set(values)) == 1 else ' / '.join(map(str, values))


def render(kernels, version, bound):
    archs = sorted({arch for values in kernels.values() for arch in values})
    rows = []
    for (file, name), values in sorted(kernels.items()):
        row = [file, f'`{name}`', bound.get(name.split('<')[0], '?')]
        row += [str(values[arch][0]) if arch in values else '-' for arch in archs]
        row += [joined([v[i] for _, v in sorted(values.items())]) for i in (1, 2, 3)]
        rows.append('| ' + ' | '.join(row) + ' |')
    title = ['file', 'kernel', 'threads'] + [f'sm_{arch}' for arch in archs]
    title += ['stack', 'spills', 'shared']
    return (HEAD + f'Compiler: nvcc {version}.\n\n| ' + ' | '.join(title) + ' |\n|' +
            '---|' * len(title) + '\n' + '\n'.join(rows) + '\n')


def read_table(text):
    """The compiler's version and {(file, kernel): {arch: (registers, stack, spills, shared)}}"""
    version = re.search(r'^Compiler: nvcc ([\d.]+)\.$', text, re.M)
    rows = [[cell.strip() for cell in line.strip('|').split(' | ')]
            for line in text.split('\n') if line.startswith('| ')]
    archs = [int(cell[3:]) for cell in rows[0][3:-3]] if rows else []
    table = {}
    for row in rows[1:]:
        rest = [spread(cell, len(archs)) for cell in row[-3:]]
        table[row[0], row[1].strip('`')] = {
            arch: (int(row[3 + i]), *(values[i] for values in rest))
            for i, arch in enumerate(archs) if row[3 + i] != '-'}
    return version.group(1) if version else '', table


def spread(cell, n):
    values = [int(part) for part in cell.split('/')]
    return values if len(values) == n else values * n


def faults(kernels, table):
    """One line a fault. Only what was compiled for is compared: a build may have fewer GPUs."""
    lines = []
    for key, values in sorted(kernels.items()):
        name = f'{key[0]}.cu {key[1]}'
        if key not in table:
            lines.append(f'{name}: not in the table')
            continue
        for arch in sorted(set(values) & set(table[key])):
            for what, now, kept in zip(TAKEN, values[arch], table[key][arch]):
                if now > kept:
                    lines.append(f'{name}: {now} {what} on sm_{arch}, the table says {kept}')
    for key in sorted(set(table) - set(kernels)):
        lines.append(f'{key[0]}.cu {key[1]}: in the table, but not compiled')
    return lines


def check(build):
    with open(TABLE, encoding='utf-8') as file:
        version, table = read_table(file.read())
    kernels, now = read_build(build), compiler()
    if not kernels:
        print(f'nothing in {build}/{SOURCES}: no nvcc in this build')
        return OTHER_COMPILER
    if version != now:
        print(f'{TABLE} is of nvcc {version}, this is {now}')
        return OTHER_COMPILER
    lines = faults(kernels, table)
    for line in lines:
        print(line)
    if lines:
        print(f'where that is meant: make cuda-table writes {TABLE} anew')
    return 1 if lines else 0


def write(build):
    kernels = read_build(build)
    if not kernels:
        print(f'nothing in {build}/{SOURCES}: build with nvcc first', file=sys.stderr)
        return 1
    spilling = [f'{key[0]}.cu {key[1]}' for key, values in sorted(kernels.items())
                if any(taken[2] for taken in values.values())]
    with open(TABLE, 'w', encoding='utf-8') as file:
        file.write(render(kernels, compiler(), bounds('.')))
    print(f'{TABLE}: {len(kernels)} kernels; with spills: {", ".join(spilling) or "none"}')
    return 0


def selftest():
    base = {('a', 'one<bf16 8>'): {80: (40, 0, 0, 512), 90: (42, 0, 0, 512)},
            ('b', 'two'): {80: (20, 16, 0, 0), 90: (20, 32, 0, 0)}}
    version, table = read_table(render(base, '1.2', {'one': '256'}))
    cases = [('', {}, 0), ('not in the table', {('c', 'three'): {80: (1, 0, 0, 0)}}, 1),
             ('bytes of spills', {('b', 'two'): {80: (20, 16, 8, 0)}}, 1),
             ('bytes of stack', {('b', 'two'): {80: (20, 24, 0, 0)}}, 1),
             ('registers', {('a', 'one<bf16 8>'): {80: (40, 0, 0, 0), 90: (43, 0, 0, 0)}}, 1),
             ('bytes of shared memory', {('a', 'one<bf16 8>'): {90: (1, 0, 0, 513)}}, 1),
             ('', {('a', 'one<bf16 8>'): {90: (41, 0, 0, 0)}}, 0)]
    wrong = [] if version == '1.2' else ['the version is not read back']
    for text, change, count in cases:
        lines = faults({**base, **change}, table)
        if len(lines) != count or not all(text in line for line in lines):
            wrong.append(f'{text or "no fault"}: {lines}')
    gone = faults({('a', 'one<bf16 8>'): base['a', 'one<bf16 8>']}, table)
    if len(gone) != 1 or 'not compiled' not in gone[0]:
        wrong.append(f'gone: {gone}')
    wrong += selftest_words()
    for line in wrong:
        print(line)
    return 1 if wrong else 0


def selftest_words():
    """ptxas's words are read as they are."""
    words = ("ptxas info    : Compiling entry function '_Z3oneIfLi8EEvPT_' for 'sm_90'\n"
             'ptxas info    : Function properties for _Z3oneIfLi8EEvPT_\n'
             '    96 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n'
             'ptxas info    : Used 33 registers, used 1 barriers, 96 bytes cumulative stack size, '
             '128 bytes smem, 400 bytes cmem[0]\n')
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        os.makedirs(os.path.join('build', SOURCES))
        os.makedirs(SOURCES)
        for name, text in (('build/' + SOURCES + '/x.ptxas', words), (SOURCES + '/x.cu', '')):
            with open(name, 'w', encoding='utf-8') as file:
                file.write(text)
        kernels = read_build('build')
        os.chdir(here)
    right = {('x', 'one<float 8>'): {90: [33, 96, 12, 128]}}
    return [] if kernels == right else [f'words: {kernels}']


def main():
    words = sys.argv[1:]
    if words == ['--selftest']:
        return selftest()
    if len(words) == 2 and words[0] in ('--write', '--check'):
        return write(words[1]) if words[0] == '--write' else check(words[1])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main())
