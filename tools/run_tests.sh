#!/usr/bin/env bash
# Runs every test program of $BUILD/tests (or those whose name contains $ONLY) and ends with one
# line "N passed, N failed, N skipped". A program that dies without a summary counts as one failure.
# ISOMOE_LONG=1 runs every count that an issue names; ISOMOE_FAST=1 (sanitizers) the smallest ones.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build/release}
limit=${TEST_SECONDS:-900}
[ -n "${ISOMOE_LONG:-}" ] && limit=14400
passed=0 failed=0 skipped=0 bad=""
logs=$build/test-logs
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-2000} # as the program does: see train/main.c
mkdir -p "$logs"

run_one() {
    name=$(basename "$1")
    begin=$(date +%s.%N)
    timeout "$limit" "$1" >"$logs/$name.log" 2>&1
    echo "$? $(date +%s.%N) $begin" >"$logs/$name.status"
}

# A name, its counts and its time; the log is shown when something failed.
book() {
    name=$1
    read -r status end begin <"$logs/$name.status"
    log=$logs/$name.log
    ok=$(sed -nE 's/^\[  PASSED  \] ([0-9]+) test.*/\1/p' "$log" | tail -n 1)
    no=$(sed -nE 's/^\[  FAILED  \] ([^:]*: )?([0-9]+) test.*/\2/p' "$log" | tail -n 1)
    off=$(sed -nE 's/^\[  SKIPPED \] [^:]*: ([0-9]+) test.*/\1/p' "$log" | tail -n 1)
    ok=${ok:-0} no=${no:-0} off=${off:-0}
    if [ "$status" -ne 0 ] && [ "$no" -eq 0 ]; then no=1; fi
    passed=$((passed + ok)) failed=$((failed + no)) skipped=$((skipped + off))
    printf '%-28s %4d passed %3d failed %3d skipped %7.1f s\n' "$name" "$ok" "$no" "$off" \
        "$(echo "$end $begin" | awk '{ print $1 - $2 }')"
    if [ "$no" -gt 0 ]; then
        bad="$bad $name"
        echo "--- $name: exit $status; last lines of $log"
        grep -vE '^\[( +OK +| RUN  +)\]' "$log" | tail -n 60
    fi
}

found=0
for program in "$build"/tests/test_*; do
    case "$program" in *.o | *.d) continue ;; esac
    case "$(basename "$program")" in *"${ONLY:-}"*) ;; *) continue ;; esac
    [ -x "$program" ] || continue
    found=$((found + 1))
    run_one "$program"
    book "$(basename "$program")"
done
if [ "$found" -eq 0 ]; then
    echo "no test program in $build/tests matches '${ONLY:-}'"
    failed=1
fi
[ -n "$bad" ] && echo "failed:$bad"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
