#!/usr/bin/env bash
# Mutation check: each tests/mutants/NAME.patch breaks the code in one place and names, in its first
# line "# kills: PROGRAM:TEST", the test that must go red. The tree is copied to build/mutants, once
# for each of JOBS workers (all cores), the patch applied, the program built, that one test of it
# run; a mutant that survives is a failure. PROGRAM may be simt/KIND/test_x: on the emulated GPU.
# usage: tools/mutate.sh [part of a name]
set -u
cd "$(dirname "$0")/.." || exit 1
here=build/mutants

# TREE: the files of this tree that are ours, as they are.
refresh() { git ls-files -co --exclude-standard | tar cf - -T - | tar xf - -C "$1"; }

# Where the program of a target lies in the build.
program_of() {
    case "$1" in simt/*) echo "build/release/$1" ;; *) echo "build/release/tests/$1" ;; esac
}

# The exit status of the one test.
run_target() {
    (
        cd "$tree" || exit 1
        case "$target" in simt/*) export ISOMOE_TEST_DEVICE=cuda ;; esac
        ISOMOE_TEST_ONLY=$test timeout 900 "$(program_of "$target")"
    ) >>"$log" 2>&1
}

# The named test failed, or it was the one running when the program died (86: the emulator found a
# fault).
went_red() {
    grep -qE "^\[  FAILED  \].*\b$test\b" "$log" && return 0
    { [ "$status" -ge 124 ] || [ "$status" -eq 86 ] ||
        grep -qE "ended by signal|^simt: " "$log"; } &&
        grep -E "^\[ RUN +\]" "$log" | tail -n 1 | grep -qE "\] $test\b"
}

# Builds and runs what the patch names, in $tree, where it is applied; prints the outcome.
judge() {
    local all=all
    case "$target" in simt/*) all= ;; esac
    if ! make -s -C "$tree" $all "$(program_of "$target")" >>"$log" 2>&1; then
        echo "UNBUILT  $name: $target does not compile"
        return
    fi
    run_target
    status=$?
    if [ "$status" -eq 0 ]; then
        echo "SURVIVED $name: $target:$test stayed green"
    elif went_red; then
        echo "killed   $name by $target:$test"
    else
        echo "SURVIVED $name: $target went red, but not in $test"
    fi
}

# One patch, in the tree of worker $SLOT; one line.
one() {
    local patch=$1
    name=$(basename "$patch" .patch) tree=$here/tree.$SLOT
    log=$here/$name.log
    target=$(sed -nE '1s/^# kills: *([A-Za-z0-9_\/]+):.*/\1/p' "$patch")
    test=$(sed -nE '1s/^# kills: *[A-Za-z0-9_\/]+: *([^ ]*).*/\1/p' "$patch")
    if patch -s -p1 -d "$tree" <"$patch" >"$log" 2>&1; then
        judge
        patch -s -R -p1 -d "$tree" <"$patch" >/dev/null
    else
        echo "STALE    $name: does not apply any more"
        refresh "$tree"
    fi
}

if [ "${1:-}" = --one ]; then
    one "$2"
    exit
fi
jobs=${JOBS:-$(nproc)}
rm -rf "$here"
mkdir -p "$here/tree.0/build"
refresh "$here/tree.0"
# what is built already need not be built again: the times of the files are kept
[ -d build/release ] && cp -a build/release "$here/tree.0/build/"
make -s -C "$here/tree.0" -j"$jobs" all tests-bin >"$here/build.log" 2>&1 || {
    echo "the unbroken tree does not build; see $here/build.log"
    exit 1
}
for ((i = 1; i < jobs; i++)); do cp -a "$here/tree.0" "$here/tree.$i"; done
find tests/mutants -name "*${1:-}*.patch" -print0 | sort -z |
    xargs -0 -r -n 1 -P "$jobs" --process-slot-var=SLOT tools/mutate.sh --one | tee "$here/outcomes"
killed=$(grep -c '^killed ' "$here/outcomes")
survived=$(grep -vc '^killed ' "$here/outcomes")
echo "mutants: $killed passed, $survived failed"
[ "$survived" -eq 0 ]
