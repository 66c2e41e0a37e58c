#!/usr/bin/env bash
# What `make run` does after the build: corpus, tokenizer and shards, training, held-out
# evaluation, a sample, the report. Each step is kept and reused by the next run.
# DATA=path takes your own text (file or folder) instead of the demo corpus; RUN is the run's
# folder.
set -eu
cd "$(dirname "$0")/.."
program=${PROGRAM:-build/release/isomoe}
run=${RUN:-runs/demo}
data=${DATA:-}
config=${CONFIG:-configs/runs/demo.yaml}

if [ -n "$data" ]; then
    [ -e "$data" ] || { echo "DATA=$data: no such file or folder" >&2; exit 1; }
    text=$data
    shards=build/shards-$(realpath "$data" | cksum | cut -d' ' -f1)
else
    text=build/corpus
    shards=build/shards-demo
    tools/corpus.sh "$text"
fi

if [ ! -f "$shards/prepare.json" ]; then
    "$program" prepare "$text" --out "$shards" --vocab-size 4096 --val-fraction 0.02 --skip-bad \
        --overwrite
fi
"$program" train "$config" "data.train=$shards" "train.out=$run"
"$program" eval "$run" --compare-xz
"$program" generate "$run" --tokens 200 --seed 7 >"$run/sample.txt.tmp"
mv "$run/sample.txt.tmp" "$run/sample.txt"
echo "--- a sample ($run/sample.txt)"
cat "$run/sample.txt"
echo
echo "---"
"$program" report "$run"
