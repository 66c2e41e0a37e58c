"""Self-test of style.py (`style.py --selftest`): a scratch tree in which every rule is broken.

Each case is one file and exactly what must be said of it; near misses stand beside them and must
pass. A check that cannot fail is a defect, and so is one that fails on good code.
"""
import codecs
import contextlib
import io
import os
import subprocess
import tempfile

HEAD = '/* a header comment of enough words. */\n'
MARK = 'TO' + 'DO'
KERNEL_MARK = '__global__ '
KERNEL = KERNEL_MARK + 'void scale_kernel(float *x)\n{\n'


def body(lines):
    return 'int f(void)\n{\n' + '    g();\n' * (lines - 4) + '    return 0;\n}\n'


def kernel(lines):
    return KERNEL + '    x[0] = 1;\n' * (lines - 3) + '}\n'


def params(count):
    return 'int f(' + ', '.join(f'T{i}' for i in range(count)) + ')\n{\n    return 0;\n}\n'


# path, content, [(line, rule)...]
CASES = [
    # columns
    ('base/wide.c', HEAD + 'int x; /*' + 'x' * 90 + '*/\n', [(2, 'columns')]),
    ('base/wide_ok.c', HEAD + 'int x; /*' + 'x' * 89 + '*/\n', []),
    ('tools/wide.py', '#' * 101 + '\n', [(1, 'columns')]),
    ('docs/wide.md', 'x' * 300 + '\n', []),
    # file length
    ('base/long.c', HEAD + 'int x;\n' * 600, [(601, 'file-length')]),
    ('base/long_ok.c', HEAD + 'int x;\n' * 599, []),
    # functions
    ('model/long.c', HEAD + body(81), [(2, 'function-length')]),
    ('model/long_ok.c', HEAD + body(80), []),
    ('device/cuda/long.cu', HEAD + kernel(151), [(2, 'function-length')]),
    ('device/cuda/long_ok.cu', HEAD + kernel(150), []),
    ('device/cuda/host.cu', HEAD + body(81), [(2, 'function-length')]),
    ('model/params.c', HEAD + params(9), [(2, 'parameters')]),
    ('model/params_ok.c', HEAD + params(8), []),
    ('device/cuda/params.cu', HEAD + KERNEL_MARK + params(13), [(2, 'parameters')]),
    ('device/cuda/params_ok.cu', HEAD + KERNEL_MARK + params(12), []),
    # include arrows
    ('base/up.c', HEAD + '#include "device/device.h"\n', [(2, 'include')]),
    ('device/up.c', HEAD + '#include "model/model.h"\n', [(2, 'include')]),
    ('data/aside.c', HEAD + '#include "device/device.h"\n', [(2, 'include')]),
    ('scaling/aside.c', HEAD + '#include "optim/adamw.h"\n', [(2, 'include')]),
    ('train/aside.c', HEAD + '#include "tests/ref/ref.h"\n', [(2, 'include')]),
    ('model/private.c', HEAD + '#include "device/cpu/cpu.h"\n', [(2, 'include')]),
    ('model/near.c', HEAD + '#include "near.h"\n', [(2, 'include')]),
    ('model/dots.c', HEAD + '#include "../base/err.h"\n', [(2, 'include')]),
    ('model/angle.c', HEAD + '#include <base/err.h>\n', [(2, 'include')]),
    ('tests/down_ok.c', HEAD + '#include "device/cpu/cpu.h"\n#include <string.h>\n', []),
    ('model/comment_ok.c', HEAD + '/*\n#include "train/loop.h"\n*/\n', []),
    # GPU libraries above device/ and comm/
    ('model/cuda.c', HEAD + 'int x = cudaMalloc;\n', [(2, 'cuda-names')]),
    ('train/nccl.c', HEAD + '#include <nccl.h>\n', [(2, 'cuda-names')]),
    ('optim/ifdef.c', HEAD + '#ifdef ISOMOE_CUDA\n#endif\n', [(2, 'cuda-names')]),
    ('model/kernel.c', HEAD + '__device__ int x;\n', [(2, 'cuda-names')]),
    ('model/cuda_ok.c', HEAD + 'const char *x = "cuda"; /* cudaMalloc */\n', []),
    ('device/cuda_ok.c', HEAD + 'int x = cudaMalloc;\n', []),
    # white space
    ('base/blank.c', HEAD + 'int x; \n', [(2, 'whitespace')]),
    ('base/tab.c', HEAD + 'int\tx;\n', [(2, 'whitespace')]),
    ('base/crlf.c', HEAD + 'int x;\r\n', [(2, 'whitespace')]),
    ('base/end.c', HEAD + 'int x;', [(2, 'whitespace')]),
    ('base/empty_end.c', HEAD + 'int x;\n\n', [(3, 'whitespace')]),
    ('base/latin.c', HEAD + 'int x; /* \udcff */\n', [(2, 'whitespace')]),
    ('Makefile', 'all:\n\ttrue\n', []),
    ('tests/mutants/a.patch', ' context\n \n', []),
    # header comment
    ('base/bare.c', 'int x;\n', [(1, 'header')]),
    ('base/short.h', '/* short */\nint x;\n', [(1, 'header')]),
    # words
    ('docs/path.md', 'see /ro' + 'ot/x\n', [(1, 'words')]),
    ('docs/path2.md', 'a\nsee /wo' + 'rk/x and /ho' + 'me/y\n', [(2, 'words'), (2, 'words')]),
    ('docs/path_ok.md', 'https://host/ho' + 'me/x build/wo' + 'rk/y\n', []),
    ('docs/name.md', 'by ' + codecs.decode('Pynhqr', 'rot13') + '.\n', [(1, 'words')]),
    ('docs/mark.md', MARK + ': later\n', [(1, 'words')]),
    ('docs/mark_ok.md', MARK + '(issue 12): later; mkdtemp("XXXX' + 'XX")\n', []),
    ('base/mark.c', HEAD + 'int x; /* FIX' + 'ME */\n', [(2, 'words')]),
    ('base/mark2.c', HEAD + 'int x; /* X' + 'XX */\n', [(2, 'words')]),
    # launches and banned calls
    ('device/cuda/raw.cu', HEAD + 'void f(void)\n{\n    k<<<1, 2>>>(x);\n}\n', [(4, 'launch')]),
    ('device/cuda/launch.cuh', HEAD + '#define LAUNCH(k) k<<<1, 2>>>()\n', []),
    ('base/banned.c', HEAD + 'int f(void)\n{\n    strcpy(a, b);\n    return rand();\n}\n',
     [(4, 'banned'), (5, 'banned')]),
    ('base/banned_ok.c', HEAD + 'int f(void)\n{\n    return my_rand() + operand(a->gets(1));\n}\n',
     []),
    # the list of excuses
    ('base/excused.c', HEAD + 'int x; \n', []),
    ('tools/style.allow', '# one used, one not\nbase/excused.c:whitespace it is needed\n'
     'base/none.c:columns it is gone\n', [(3, 'allow')]),
]


def make_tree(root):
    for path, content, _ in CASES:
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, 'w', encoding='utf-8', errors='surrogateescape', newline='') as stream:
            stream.write(content)
    with open(os.path.join(root, '.gitignore'), 'w', encoding='utf-8') as stream:
        stream.write('/build/\n')
    os.makedirs(os.path.join(root, 'build'))
    with open(os.path.join(root, 'build/ignored.c'), 'w', encoding='utf-8') as stream:
        stream.write('int x; \n')
    subprocess.run(['git', '-C', root, 'init', '-q'], check=True)


def run(style):
    """0 when every case is said exactly as expected, and bars and exit codes work."""
    wrong = []
    with tempfile.TemporaryDirectory() as root:
        make_tree(root)
        files = list(style.read_files(root))
        functions = list(style.read_functions(root, files))
        found = style.find_violations(root, files, functions)
        expected = {(path, *row) for path, _, rows in CASES for row in rows}
        rules = {rule for _, _, rule in expected}
        said = sorted((path, line, rule) for path, line, rule, _ in found)
        wanted = sorted((path, *row) for path, _, rows in CASES for row in rows)
        wrong += [f'not found: {row}' for row in wanted if row not in said]
        wrong += [f'wrongly found: {row}' for row in said if row not in expected]
        wrong += [] if len(said) == len(wanted) else [f'{len(said)} found, {len(wanted)} wanted']
        every = {*style.CHECKS, 'function-length', 'parameters', 'allow'}
        wrong += [f'rule without a case: {rule}' for rule in sorted(every - rules)]
        silent = io.StringIO()
        with contextlib.redirect_stdout(silent):
            wrong += [] if style.main([root]) == 1 else ['a bad tree gave exit code 0']
            long_ones = [(file, 1, 'f', 61, 1, False) for file in files if file.is_c]
            wrong += [] if 'function p90' in style.print_table(files, long_ones) else ['no bar']
    with tempfile.TemporaryDirectory() as root:
        subprocess.run(['git', '-C', root, 'init', '-q'], check=True)
        with open(os.path.join(root, 'good.c'), 'w', encoding='utf-8') as stream:
            stream.write(HEAD + body(10))
        with contextlib.redirect_stdout(silent):
            wrong += [] if style.main([root]) == 0 else ['a good tree gave exit code 1']
    for line in wrong:
        print('style --selftest:', line)
    print(f'style --selftest: {len(CASES)} cases, {len(wrong)} wrong')
    return 1 if wrong else 0
