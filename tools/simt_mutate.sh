#!/usr/bin/env bash
# Removes each barrier of the kernels (__syncthreads(), __syncwarp(...)) in turn and runs the
# contract tests that reach it under the race checker of the emulated GPU: it must report. A barrier
# that survives is redundant, or its loop ran once, or no test reaches it: a failure, unless
# tests/simt/barriers.txt says "FILE:FUNCTION:NUMBER reason", NUMBER from 1 within the function.
# JOBS workers (all cores), each in a tree of its own.
# usage: SIMT_OPS="test_ops_a test_ops_b ..." tools/simt_mutate.sh [part of FILE:FUNCTION:NUMBER]
set -u
cd "$(dirname "$0")/.." || exit 1
excused=tests/simt/barriers.txt
here=build/simt-mutants
slot=${SLOT:-0}
tree=$here/tree.$slot
jobs=${JOBS:-$(nproc)}
export ISOMOE_TEST_DEVICE=cuda

build() { # JOBS programs...; the log of the compiler is in $here/build.SLOT.log
    local at_once=$1
    shift
    make -s -C "$tree" -j"$at_once" "${@/#/build/release/simt/check/}" \
        >"$here/build.$slot.log" 2>&1
}

# Runs a program of the tree; its exit status. Its output is in $here/run.SLOT.log.
run() { (cd "$tree" && timeout 900 "build/release/simt/check/$1") >"$here/run.$slot.log" 2>&1; }

# "FILE:FUNCTION:NUMBER path line" of every barrier. A function begins at a line that starts with a
# letter and has a parenthesis.
barriers() {
    for path in device/cuda/*.cu device/cuda/*.cuh; do
        [ -e "$path" ] || continue
        awk -v path="$path" -v file="$(basename "$path")" '
            /^[A-Za-z]/ && /\(/ && !/;[ \t]*$/ {
                line = $0
                sub(/KERNEL\([^)]*\)/, "", line)
                if (match(line, /[A-Za-z_0-9]+[ ]*\(/)) {
                    name = substr(line, RSTART, RLENGTH - 1)
                    number = 0
                }
            }
            { code = $0; sub(/\/\*.*|\/\/.*/, "", code) }
            code ~ /__sync(threads|warp)\([^;]*\);/ { print file ":" name ":" ++number, path, NR }
        ' "$path"
    done
}

# Kernels that a program launches, as lines "PROGRAM function file seconds".
note_kernels() {
    local program=$1 begin=$SECONDS
    rm -f "$here/kernels"
    ISOMOE_FAST=1 SIMT_KERNELS=$PWD/$here/kernels run "$program" || {
        echo "UNCLEAN  $program fails or is reported without any change"
        tail -n 5 "$here/run.$slot.log" | sed 's/^/         /'
        return
    }
    [ -e "$here/kernels" ] || return
    sort -u "$here/kernels" | addr2line -C -f -e "$tree/build/release/simt/check/$program" |
        paste - - |
        awk -v program="$program" -v seconds=$((SECONDS - begin)) -F'\t' '{
            sub(/\(.*/, "", $1); sub(/<.*/, "", $1); sub(/.* /, "", $1)
            sub(/:.*/, "", $2); sub(/.*\//, "", $2)
            print program, $1, $2, seconds
        }' >>"$here/map"
}

# Programs that reach a function: those that launch it, else those that launch a kernel of its file,
# else (a header) all; quick ones first.
programs_for() {
    local found
    found=$(awk -v f="$1" '$2 == f { print $4, $1 }' "$here/map")
    [ -n "$found" ] || found=$(awk -v f="$2" '$3 == f { print $4, $1 }' "$here/map")
    case "$2" in *.cuh) [ -n "$found" ] || found=$(awk '{ print $4, $1 }' "$here/map") ;; esac
    echo "$found" | sort -nu | awk 'NF { print $2 }' | awk '!seen[$0]++'
}

# A report of the emulator, not only a wrong number.
reported() { grep -q '^simt: ' "$here/run.$slot.log"; }

unbuilt="it does not compile without it"

# Tries one barrier; "by PROGRAM: first line of the report", or nothing.
try() {
    local program fast
    for fast in 1 ""; do
        for program in $1; do
            export ISOMOE_FAST=$fast
            [ -n "$fast" ] || unset ISOMOE_FAST
            build 1 "$program" || {
                echo "$unbuilt"
                return
            }
            if ! run "$program" && reported; then
                echo "by $program: $(grep -m 1 '^simt: ' "$here/run.$slot.log" | cut -c 7-90)"
                return
            fi
        done
    done
}

# "NAME PATH LINE": without that barrier, in the tree of this worker; one line.
one() {
    local name=$1 path=$2 line=$3 file function reason reach how
    IFS=: read -r file function _ <<<"$name"
    reason=$(sed -n "s/^$name  *//p" "$excused" 2>/dev/null)
    reach=$(programs_for "$function" "$file")
    sed -i -E "${line}s/__sync(threads|warp)\([^;]*\);/;/" "$tree/$path"
    how=$([ -n "$reach" ] && try "$reach")
    if [ -n "$reason" ] && [ -n "$how" ]; then
        echo "STALE    $name is listed as redundant, but was killed $how"
    elif [ "$how" = "$unbuilt" ]; then
        echo "UNBUILT  $name: $how; see $here/build.$slot.log"
    elif [ -n "$how" ]; then
        echo "killed   $name $how"
    elif [ -n "$reason" ]; then
        echo "listed   $name $reason"
    elif [ -z "$reach" ]; then
        echo "UNREACHED $name: no test launches it"
    else
        echo "SURVIVED $name ($path:$line) in ${reach//$'\n'/ }"
    fi
    cp -p "$path" "$tree/$path" && touch "$tree/$path"
}

if [ "${1:-}" = --one ]; then
    read -r name path line <<<"$2"
    one "$name" "$path" "$line"
    exit
fi
rm -rf "$here"
mkdir -p "$tree/build"
git ls-files -co --exclude-standard | tar cf - -T - | tar xf - -C "$tree"
# what is built already need not be built again: the times of the files are kept
[ -d build/release ] && cp -a build/release "$tree/build/"
read -r -a programs <<<"${SIMT_OPS:-}"
if [ "${#programs[@]}" -eq 0 ]; then
    echo "no contract tests run on the emulated device yet: nothing to do"
    exit 0
fi
build "$jobs" "${programs[@]}" || {
    echo "the tree does not build; see $here/build.0.log"
    exit 1
}
: >"$here/map"
for program in "${programs[@]}"; do note_kernels "$program"; done | tee "$here/unclean"
for ((i = 1; i < jobs; i++)); do cp -a "$tree" "$here/tree.$i"; done

barriers | awk -v only="${1:-}" 'index($1, only)' | tr '\n' '\0' |
    xargs -0 -r -n 1 -P "$jobs" --process-slot-var=SLOT tools/simt_mutate.sh --one |
    tee "$here/outcomes"
barriers | cut -d ' ' -f 1 >"$here/names"
for name in $(grep -v '^#' "$excused" 2>/dev/null | cut -d ' ' -f 1); do
    grep -qxF "$name" "$here/names" || echo "STALE    $name is in $excused, but not in the code"
done | tee "$here/stale"
killed=$(grep -c '^killed ' "$here/outcomes")
listed=$(grep -c '^listed ' "$here/outcomes")
bad=$(cat "$here/outcomes" "$here/unclean" "$here/stale" | grep -cE '^[A-Z]')
echo "barriers: $killed reported, $listed listed as redundant, $bad failed"
[ "$bad" -eq 0 ]
