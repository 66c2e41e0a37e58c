#!/usr/bin/env bash
# Tries `isomoe sweep --launch mpi` with the real Open MPI: the same losses as without it, as root
# and as another user; no trainer outlives its driver or its mpirun. Part of make test-long; prints
# one line a check. More ranks than cores, stubborn trainers: test_launch.
# usage: tests/launchers/mpi.sh      BUILD=folder of the program
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/launchers/common.sh
out=$build/launchers/mpi

# SWEEP: the mpirun of its driver.
mpirun_of() { pgrep -f "^mpirun .*train $1/"; }

as_nobody() {
    local to=$out/nobody
    mkdir -p "$to" && chown 65534:65534 "$to"
    setpriv --reuid=65534 --regid=65534 --clear-groups "$program" sweep "$out/short.yaml" \
        "sweep.out=$to/short" --launch mpi && same_losses "$to/short" "$out/local"
}

killed_mpirun() {
    local sweep=$out/long pid
    start_long "$out" mpi
    pid=$(mpirun_of "$sweep")
    kill -KILL $pid
    # The same driver tries again, beside nothing that was left.
    expect "mpi, mpirun killed: it is tried again" wait_until 60 \
        grep -q "failed, to be tried again: ended by signal 9" "$out/long.log"
    rm -f "$sweep"/cells/*/log.jsonl
    expect "mpi, mpirun killed: the next trainer runs" wait_until 60 steps_made "$sweep"
    expect "mpi, mpirun killed: one trainer" [ "$(trainers_of "$sweep" | wc -l)" -eq 1 ]
    kill -TERM "$driver"
    wait "$driver"
}

missing() {
    rm -rf "$out/missing"
    PATH=/nowhere "$program" sweep "$out/short.yaml" "sweep.out=$out/missing" --launch mpi \
        >"$out/missing.log" 2>&1
    [ $? -eq 1 ] && grep "error: .*mpirun: cannot be started" "$out/missing.log" || return 1
    cells_of "$out/missing"
    ! cells_of "$out/missing" | grep -qv " planned "
}

command -v mpirun >/dev/null || skip_all "there is no mpirun (Debian: openmpi-bin)"
mpirun --version 2>&1 | grep -q 'Open MPI' || skip_all "mpirun is not Open MPI's"
rm -rf "$out"
make_study "$out" short "6e8, 1e9" && make_study "$out" long "1e14" ||
    { no "the study's data" "$out/prepare.log"; check_all; }

expect "local: a study" "$program" sweep "$out/short.yaml" "sweep.out=$out/local"
expect "mpi: the same study, three cells at a time" "$program" sweep "$out/short.yaml" \
    --launch mpi --jobs 3
expect "mpi: the same losses" same_losses "$out/short" "$out/local"
if [ "$(id -u)" = 0 ] && setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$program"; then
    expect "mpi, as a user: the same losses" as_nobody
else
    echo "SKIPPED mpi, as a user: not root, or a user cannot reach $program"
fi
expect "mpi, no mpirun: an error that says so, nothing lost" missing
check_ctrl_c mpi
check_driver_killed mpi
killed_mpirun
check_all
