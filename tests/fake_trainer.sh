#!/bin/sh
# Stands in for `isomoe train` in the tests of the sweep's driver: takes milliseconds and writes
# what it does to SWEEP/log. Words among the overrides say how it behaves:
#   steps=N ms=SECONDS   N steps of so long, each kept in the run folder: a second start goes on
#   fake=diverge         diverges at its full rate, not at a lower one
#   fake=wreck           diverges at any rate
#   fake=fail            exits with 1 and two lines on standard error
#   fake=fail-once       fails in its first start
#   fake=mute            exits with 0 and writes no result
#   fake=preempt-once    exits with 3 in its first start
#   fake=slow            takes 3 s to stop
#   fake=stubborn        ignores SIGTERM and SIGUSR1
#   fake=stranger        writes the result of another cell
#   fake=nan             ends well, with a held-out loss that is not finite, at its full rate
#   fake=hang-once       does nothing for a minute in its first start, and ignores SIGTERM
#   fake=hang            in each
#   fake=slow            takes 5 s for its first step, and shows all the time that it lives
#   fake=pause           takes 5 s for its first step, and shows nothing
# What is done under the same label is left as it is.
shift
base=$1 out='' from='' fake=ok lr='' cell='' steps=2 pause=0.002
sweep=${base%/*}
while [ $# -gt 0 ]; do
    case $1 in
    train.out=*) out=${1#*=} ;;
    train.from=*) from=${1#*=} ;;
    optim.lr=*) lr=${1#*=} ;;
    fake=*) fake=${1#*=} ;;
    steps=*) steps=${1#*=} ;;
    ms=*) pause=${1#*=} ;;
    --cell) cell=$2 && shift ;;
    esac
    shift
done
log() { echo "$* $cell lr=$lr from=${from##*/}" >>"$sweep/log"; }

result() { # status loss
    printf '{"format": "isomoe-result", "version": 1, "status": "%s", "cell": "%s", "loss": %s,
 "targets": 99,
 "train_loss": 3.25, "tokens": 1280, "flops": 2e9, "seconds": 0.5, "b_noise": null, "steps": %d,
 "reason": "too fast"}\n' "$1" "$cell" "$2" "$n" >"$out/result.$$"
    mv "$out/result.$$" "$out/result.json"
}

mkdir -p "$out"
stopped=
trap 'stopped=1' TERM USR1
[ $fake = stubborn ] && trap '' TERM USR1
exec 8>"$out/alone"
flock -n 8 || log overlap
[ -n "$from" ] && [ ! -e "$from/result.json" ] && log orphan
if grep -q "\"done\", \"cell\": \"$cell\"" "$out/result.json" 2>/dev/null; then
    log complete
    exit 0
fi
starts=$(cat "$out/starts" 2>/dev/null || echo 0)
echo $((starts + 1)) >"$out/starts"
log start
case $fake$starts in
fail-once0 | fail[0-9]*)
    echo "first line" >&2
    echo "error: broken on purpose" >&2
    exit 1
    ;;
preempt-once0) exit 3 ;;
hang-once0 | hang[0-9]*)
    trap '' TERM
    touch "$out/lock"
    for i in $(seq 600); do sleep 0.1; done
    exit 1
    ;;
slow*) for i in $(seq 50); do sleep 0.1 && touch "$out/lock"; done ;;
pause*) sleep 5 ;;
mute*) exit 0 ;;
esac
n=$(cat "$out/steps" 2>/dev/null || echo 0)
n=${n:-0} # a signal to the group may have ended what reads it
while [ "$n" -lt "$steps" ]; do
    [ -n "$stopped" ] && [ $fake = slow ] && trap '' TERM USR1 && sleep 3
    [ -n "$stopped" ] && log stop && exit 3
    sleep "$pause"
    n=$((n + 1))
    echo "$n" >"$out/steps.$$" && mv "$out/steps.$$" "$out/steps"
done
trap '' TERM USR1
case $fake in
diverge) case $cell in *@*) ;; *) result diverged null && exit 4 ;; esac ;;
wreck) result diverged null && exit 4 ;;
stranger) cell=ffffffffffffffff ;;
nan) case $cell in *@*) ;; *) result "done" null && exit 0 ;; esac ;;
esac
log finish
result "done" 3.5
