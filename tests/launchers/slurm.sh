#!/usr/bin/env bash
# Tries `isomoe sweep --launch srun` and `--launch sbatch` with the real Slurm: starts munged,
# slurmctld and slurmd by hand, one node of this machine, with files and ports of their own; runs
# test_launch and small studies; stops all of it. Part of make test-long; prints one line a check.
# usage: tests/launchers/slurm.sh      BUILD=folder of the program; SLURM_PORT (16817 and the next)
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/launchers/common.sh
out=$build/launchers/slurm
port=${SLURM_PORT:-16817}
daemons=()

# munged refuses a path that others may write to, and one of more than 107 bytes: so not $out.
start_slurm() {
    local host
    host=$(hostname -s)
    small=$(mktemp -d /tmp/isomoe-slurm-XXXXXX) && chmod 755 "$small" || return 1
    mkdir -p "$small/key" "$out/state" "$out/spool" && chmod 700 "$small/key" || return 1
    head -c 1024 /dev/urandom >"$small/key/key" && chmod 400 "$small/key/key"
    munged --foreground --key-file="$small/key/key" --socket="$small/munge" \
        --pid-file="$small/key/pid" --log-file="$small/key/log" --seed-file="$small/key/seed" \
        --num-threads=2 >"$out/munged.log" 2>&1 &
    daemons+=($!)
    cat >"$out/slurm.conf" <<END
ClusterName=isomoe
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
AuthInfo=socket=$small/munge
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$out/state
SlurmdSpoolDir=$out/spool
SlurmctldPidFile=$out/slurmctld.pid
SlurmdPidFile=$out/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
    export SLURM_CONF=$out/slurm.conf
    wait_until 10 test -S "$small/munge" || return 1
    slurmctld -D -i >"$out/slurmctld.log" 2>&1 &
    daemons+=($!)
    slurmd -D >"$out/slurmd.log" 2>&1 &
    daemons+=($!)
    wait_until 60 srun --immediate=5 --ntasks=1 true
}

# Processes with a file of ours in their words.
left_over() { pgrep -f "$out/|${small:-$out}/"; }
no_job() { [ -z "$(squeue --noheader)" ]; }

stop_slurm() {
    local pid
    [ -n "${SLURM_CONF:-}" ] && scancel --user=root 2>/dev/null && wait_until 20 no_job
    for pid in "${daemons[@]+"${daemons[@]}"}"; do kill "$pid" 2>/dev/null; done
    for pid in "${daemons[@]+"${daemons[@]}"}"; do wait "$pid" 2>/dev/null; done
    daemons=()
    clean_up
    for pid in $(left_over); do # where the controller was gone before its jobs
        [ "$(ps -o comm= -p "$(ps -o ppid= -p "$pid")")" = slurmstepd ] &&
            kill -KILL "$(ps -o ppid= -p "$pid")"
        kill -KILL -- "-$pid" "$pid"
    done 2>/dev/null
    [ -n "${small:-}" ] && rm -rf "$small"
}

is_waiting() { squeue --noheader --states=PENDING --format=%j | grep -q '^isomoe-'; }
none_waiting() { ! is_waiting; }

# A driver dies while its cell waits for a node that is full.
check_waiting() {
    local hold
    hold=$(sbatch --parsable --exclusive --output=/dev/null --wrap 'sleep 600')
    rm -rf "$out/long"
    "$program" sweep "$out/long.yaml" --launch srun --jobs 1 >"$out/long.log" 2>&1 &
    driver=$!
    expect "srun, no node: the cell waits" wait_until 60 is_waiting
    kill -KILL "$driver"
    wait "$driver" 2>/dev/null
    expect "srun, no node, the driver killed: no job waits" wait_until 30 none_waiting
    scancel "$hold"
}

# The real Slurm's test was not skipped.
test_program() {
    ISOMOE_LONG=1 "$build/tests/test_launch" >"$out/test_launch.log" 2>&1
    grep -E "FAILED|ERROR|LINE" "$out/test_launch.log"
    grep -q "OK \] test_slurm" "$out/test_launch.log" && ! grep -q FAILED "$out/test_launch.log"
}

[ "$(id -u)" = 0 ] || skip_all "only root can start a Slurm of its own"
for name in munged slurmctld slurmd srun sbatch scancel; do
    command -v $name >/dev/null || skip_all "there is no $name (Debian: slurm-wlm, munge)"
done
rm -rf "$out"
mkdir -p "$out"
trap stop_slurm EXIT
start_slurm || { no "Slurm does not start" "$out/wait"; check_all; }
make_study "$out" short "6e8, 1e9" && make_study "$out" long "1e14" ||
    { no "the study's data" "$out/prepare.log"; check_all; }

expect "test_launch with the real Slurm" test_program
expect "local: a study" "$program" sweep "$out/short.yaml" "sweep.out=$out/local"
for mode in srun sbatch; do
    expect "$mode: the same study, three cells at a time" "$program" sweep "$out/short.yaml" \
        "sweep.out=$out/$mode" --launch $mode --jobs 3
    expect "$mode: the same losses" same_losses "$out/$mode" "$out/local"
done
check_ctrl_c srun
check_driver_killed srun
check_ctrl_c sbatch
check_waiting
expect "no job is left" wait_until 30 no_job
left=$(pgrep -f "^$program|/slurm_script")
[ -z "$left" ] && ok "nothing of a job is left" || no "left: $left"
stop_slurm
left=$(left_over)
if [ -z "$left" ] && [ ! -e "$small" ]; then ok "nothing is left"; else no "left: $left $small"; fi
check_all
