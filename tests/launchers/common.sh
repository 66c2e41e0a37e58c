# What the scripts of this folder share: they source it. A check prints one line; a script ends with
# check_all. BUILD: where the program and its tests are (default build/release).
build=$(realpath "${BUILD:-build/release}")
program=$build/isomoe
failed=0
trap clean_up EXIT

ok() { echo "ok     $*"; }

no() { # WHAT [FILE]: failed, with a file's last lines
    echo "FAILED $1"
    [ -n "${2:-}" ] && [ -e "$2" ] && tail -n 15 "$2" | cut -c1-300 | sed 's/^/       /'
    failed=1
}

skip_all() { # WHY: nothing here can be tried
    echo "SKIPPED $0: $1"
    exit 0
}

# Ends what a failed check left behind: drivers and trainers of $out.
clean_up() {
    local pid
    for pid in $(pgrep -f "^$program (sweep|train) $out/"); do kill -KILL "$pid"; done
}

check_all() { exit "$failed"; }

expect() { # WHAT COMMAND...: it ends with 0
    local what=$1
    shift
    if "$@" >"$out/log" 2>&1; then ok "$what"; else no "$what: exit code $?" "$out/log"; fi
}

# FOLDER NAME BUDGETS: NAME.yaml, a study of one size a budget, and the text it trains on.
make_study() {
    local dir=$1 i=0
    mkdir -p "$dir"
    if [ ! -d "$dir/data" ]; then
        while [ $i -lt 150 ]; do
            i=$((i + 1))
            echo "{\"text\": \"Line $((i * 7919 % 1000)): the router sends each token to an" \
                "expert and keeps what it finds there, again and again, while $((i * 31 % 97))" \
                "others wait for room. Then $((i * 17 % 89)) of them leave, and each of these" \
                "comes back after $((i * 13 % 61)) steps.\"}"
        done >"$dir/text.jsonl"
        "$program" prepare "$dir/text.jsonl" --out "$dir/data" --vocab-size 400 \
            --val-fraction 0.1 >"$dir/prepare.log" 2>&1 || return 1
    fi
    cat >"$dir/base.yaml" <<END
model: {vocab_size: 400, d_model: 32, n_layers: 2, n_heads: 2, n_kv_heads: 1,
  qk_norm: head_after_rope, n_experts: 4, top_k: 2, expert_width: 16, n_shared: 1,
  shared_width: 16, routing_group_tokens: 64}
data: {train: $dir/data, seq_len: 32}
optim: {lr: 0.01, warmup_steps: 2, decay_steps: 2}
train: {out: run, steps: 6, batch: 4, eval_every: 0, eval_sequences: 5, log_every: 1,
  threads: 1}
END
    cat >"$dir/$2.yaml" <<END
sweep: {name: $2, out: $dir/$2, base: $dir/base.yaml, budgets: '$3', sizes: 1,
  spacing: 1.5, cooldown: 0.25, warmup: 0.1, adaptive: 0}
family: {width_step: 4, width_min: 8, width_max: 32, aspect: 8, head_dim: 4,
  query_group: 2, expert_ratio: 0.5, shared_ratio: 0.5, ffn_step: 4}
centre: {prior: power, factor: 9000, exponent: 0}
rate: {law: constant, value: 0.01}
batch: {law: constant, value: 128}
END
}

# SWEEP: "name state loss" of every cell, by name.
cells_of() {
    "$program" sweep status "$1" --json | python3 -c '
import json, sys
for cell in sorted(json.load(sys.stdin), key=lambda c: c["name"]):
    print(cell["name"], cell["state"], cell["loss"])'
}

# SWEEP OTHER: every cell of both is done, with the same loss to the last bit.
same_losses() {
    cells_of "$1" >"$out/one" && cells_of "$2" >"$out/other" && cat "$out/one" || return 1
    [ -s "$out/one" ] && ! grep -qv " done " "$out/one" && diff "$out/one" "$out/other"
}

# SWEEP: the numbers of its trainers that live, whoever started them.
trainers_of() { pgrep -f "^$program train $1/"; }

wait_until() { # SECONDS COMMAND...: until it succeeds
    local end=$(($(date +%s) + $1))
    shift
    until "$@" >"$out/wait" 2>&1; do
        [ "$(date +%s)" -ge "$end" ] && return 1
        sleep 0.1
    done
}

no_trainer() { ! trainers_of "$1"; }
# SWEEP: a trainer has made its first steps.
steps_made() { grep -qs '"step":1,' "$1"/cells/*/log.jsonl; }
checkpoint_of() { ls -d "$1"/cells/*/checkpoints/step-*; }

# FOLDER MODE: begins long.yaml there; sets driver. Its cell runs for hours.
start_long() {
    rm -rf "$1/long"
    "$program" sweep "$1/long.yaml" --launch "$2" --jobs 1 >"$1/long.log" 2>&1 &
    driver=$!
    wait_until 120 steps_made "$1/long" || no "$2: the trainer does not begin" "$1/long.log"
}

# MODE: after a Ctrl-C no trainer is left, and its checkpoint is written.
check_ctrl_c() {
    local sweep=$out/long code
    start_long "$out" "$1"
    kill -INT "$driver"
    wait "$driver"
    code=$?
    if no_trainer "$sweep"; then ok "$1, Ctrl-C: no trainer is left"; else
        no "$1, Ctrl-C: trainers are left"
    fi
    expect "$1, Ctrl-C: a checkpoint" checkpoint_of "$sweep"
    expect "$1, Ctrl-C: exit code $code" [ $code -eq 3 ]
    expect "$1, Ctrl-C: the cell is planned again" grep -q planned <(cells_of "$sweep")
}

# MODE: the same soon after its driver was killed.
check_driver_killed() {
    start_long "$out" "$1"
    kill -KILL "$driver"
    wait "$driver" 2>/dev/null
    expect "$1, the driver killed: no trainer is left" wait_until 30 no_trainer "$out/long"
    expect "$1, the driver killed: a checkpoint" checkpoint_of "$out/long"
}
