#!/usr/bin/env python3
"""Trains variants of one configuration over several seeds and prints a table of held-out losses.

usage: tools/compare.py [--program P] [--seeds 1,2,3] [--jobs 2] [--out FOLDER] CONFIG VARIANT...

A VARIANT is "name" or "name: key=value key=value ...". Runs lie in FOLDER/name-seed and are kept: a
run that is complete is not made again, one that was interrupted goes on. The table is Markdown:
mean and standard deviation over the seeds, and the difference to the first variant, paired by seed,
with its 95 % interval (Student's t). A run that fails or diverges is shown, never left out.
"""
import argparse
import concurrent.futures
import json
import math
import os
import statistics
import subprocess
import sys

# Two-sided 95 % quantiles of Student's t by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def parse(text):
    name, _, keys = text.partition(':')
    return name.strip(), keys.split()


def final_record(folder):
    last = None
    try:
        with open(os.path.join(folder, 'log.jsonl'), encoding='utf-8') as lines:
            for line in lines:
                record = json.loads(line)
                if record.get('event') in ('final', 'diverged'):
                    last = record
    except (OSError, ValueError):
        return None
    return last


def run_one(args, name, keys, seed):
    folder = os.path.join(args.out, f'{name}-{seed}')
    os.makedirs(args.out, exist_ok=True)
    with open(folder + '.txt', 'w', encoding='utf-8') as log:
        command = [args.program, 'train', args.config, f'train.out={folder}',
                   f'train.seed={seed}'] + keys
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    record = final_record(folder)
    if code == 0 and record and record['event'] == 'final':
        return record['val_loss']
    print(f'{name}, seed {seed}: exit code {code}; see {folder}.txt', file=sys.stderr)
    return None


def interval(values):
    """Mean and half-width of its 95 % interval; the half-width is None for one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    half = T95.get(len(values) - 1, 1.96) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, half


def row(name, losses, base):
    kept = [x for x in losses if x is not None]
    failed = len(losses) - len(kept)
    if not kept:
        return f'| {name} | - | - | {failed} failed | - |'
    mean = statistics.fmean(kept)
    spread = f'{statistics.stdev(kept):.4f}' if len(kept) > 1 else '-'
    each = ' '.join('failed' if x is None else f'{x:.4f}' for x in losses)
    pairs = [x - b for x, b in zip(losses, base) if x is not None and b is not None]
    if losses is base or not pairs:
        return f'| {name} | {mean:.4f} | {spread} | {each} | - |'
    delta, half = interval(pairs)
    plus = '' if half is None else f' +- {half:.4f}'
    return f'| {name} | {mean:.4f} | {spread} | {each} | {delta:+.4f}{plus} |'


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--program', default='build/release/isomoe')
    parser.add_argument('--seeds', default='1,2,3')
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--out', default='runs/compare')
    parser.add_argument('config')
    parser.add_argument('variant', nargs='+')
    args = parser.parse_args()
    seeds = [int(s) for s in args.seeds.split(',')]
    variants = [parse(v) for v in args.variant]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        jobs = [[pool.submit(run_one, args, name, keys, seed) for seed in seeds]
                for name, keys in variants]
        table = [[job.result() for job in jobs_of] for jobs_of in jobs]
    print(f'| variant | held-out loss | sd | seeds {args.seeds} '
          f'| minus {variants[0][0]} (paired, 95 %) |')
    print('|---|---|---|---|---|')
    for (name, _), losses in zip(variants, table):
        print(row(name, losses, table[0]))
    return 1 if any(x is None for losses in table for x in losses) else 0


if __name__ == '__main__':
    sys.exit(main())
