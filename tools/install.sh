#!/usr/bin/env bash
# Installs the Debian packages of a section of packages.txt that are missing, and those of the
# sections it stands on. Says first what it will install; with nothing missing, no network is used.
# usage: tools/install.sh run|test|long     ISOMOE_NO_INSTALL=1: do nothing (you have all by hand)
#        tools/install.sh -n run|test|long  list what is missing; exit 1 if anything is
set -u
list=$(dirname "$0")/../packages.txt

only_list=0
if [ "${1:-}" = -n ]; then
    only_list=1
    shift
fi
case "${1:-}" in
run) sections="run" ;;
test) sections="run test" ;;
long) sections="run test long" ;;
*)
    echo "usage: tools/install.sh [-n] run|test|long" >&2
    exit 2
    ;;
esac
[ -n "${ISOMOE_NO_INSTALL:-}" ] && exit 0

names=$(awk -v wanted=" $sections " '
    { sub(/#.*/, "") }
    /^\[/ { gsub(/[][ \t]/, ""); on = index(wanted, " " $0 " "); next }
    on && NF { print $1 }' "$list")

# The names that are not installed; all of them where dpkg does not know.
find_missing() {
    present=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $names 2>/dev/null |
        sed -n 's/^installed //p')
    for name in $names; do
        case "
$present
" in *"
$name
"*) ;; *) echo "$name" ;; esac
    done
}

by_hand() {
    echo "tools/install.sh: $1" >&2
    echo "Please install what these Debian packages hold, then run again" >&2
    echo "(with ISOMOE_NO_INSTALL=1 where there is no dpkg):" >&2
    echo $missing | fold -s -w 90 | sed 's/^/    /' >&2
    exit 1
}

missing=$(find_missing)
[ -z "$missing" ] && exit 0
if [ "$only_list" = 1 ]; then
    echo "$missing"
    exit 1
fi
command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
    by_hand "this is not Debian or Ubuntu (no dpkg-query or no apt-get)."

as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || by_hand "not root, and there is no sudo."
    as_root=sudo
    [ -t 0 ] || sudo -n true 2>/dev/null || by_hand "not root, and sudo wants a password."
fi
echo "tools/install.sh: installing for '$1':" $missing
$as_root apt-get -q update || echo "tools/install.sh: apt-get update failed; trying without" >&2
# Another apt-get may hold the lock for a while (unattended upgrades do).
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
    --no-install-recommends install $missing ||
    by_hand "apt-get could not install them; its messages are above."
missing=$(find_missing)
[ -z "$missing" ] || by_hand "apt-get said it was done, but these are still missing."
