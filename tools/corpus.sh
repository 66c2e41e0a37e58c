#!/usr/bin/env bash
# The demo corpus: the manuals of Perl and Vim, about 12 MB of English technical text, one document
# a file, from the Debian packages perl-doc and vim-runtime. Taken from the system when the packages
# are installed whole, else from downloaded .deb files, unpacked here (needs no root).
# usage: tools/corpus.sh [OUT]     folder of .txt files, default build/corpus; a rerun reuses it
#        DATA=path set: nothing is made, that path is the corpus
set -eu
if [ -n "${DATA:-}" ]; then
    echo "corpus: $DATA (given by DATA)"
    exit 0
fi
out=${1:-build/corpus}
work=$(realpath -m "$out").work

# package, which of its files, which of them not: translations, tables, lists of patches
sources='
perl-doc    usr/share/perl/[^/]+/pod/.*\.pod$     perl(cn|jp|ko|tw|toc|uniprops)\.pod$
vim-runtime usr/share/vim/vim[0-9]+/doc/.*\.txt$  version[5-9]\.txt$
'

fail() {
    echo "corpus: $1" >&2
    echo "hint: tools/install.sh run installs perl-doc and vim-runtime; or set DATA=path to a" \
        "folder of .txt, .jsonl, .gz or .zst files of your own" >&2
    exit 1
}

# Hash of names and contents, in bytewise order of the names.
hash_of() {
    (cd "$1" && find . -type f -name '*.txt' | LC_ALL=C sort | xargs -d '\n' sha256sum) |
        sha256sum | cut -c 1-16
}

report() {
    bytes=$(cat "$out"/*.txt | wc -c)
    files=$(find "$out" -type f -name '*.txt' | wc -l)
    echo "$bytes $files $1" |
        awk -v out="$out" '{ printf "corpus: %s: %d documents, %.1f MB, hash %s%s\n", out, $2,
                             $1 / 1e6, $3, $4 ? " (" $4 ")" : "" }'
}

# The package's wanted files as absolute paths, if it is installed and none was dropped (container
# images often leave out /usr/share/doc).
installed_files() {
    files=$(dpkg-query -L "$1" 2>/dev/null | grep -E "^/$2" | grep -vE "$3") || return 1
    for file in $files; do [ -f "$file" ] || return 1; done
    echo "$files"
}

# The same from a .deb, downloaded once into the work folder.
downloaded_files() {
    mkdir -p "$work/deb" "$work/root/$1"
    if ! ls "$work/deb/$1"_*.deb >/dev/null 2>&1; then
        command -v apt-get >/dev/null || return 1
        echo "corpus: downloading $1" >&2
        (cd "$work/deb" && apt-get -q download "$1" >&2) || return 1
    fi
    dpkg-deb --fsys-tarfile "$(ls "$work/deb/$1"_*.deb | tail -n 1)" |
        tar x -C "$work/root/$1" || return 1
    find "$work/root/$1" -type f | grep -E "/$2" | grep -vE "$3"
}

if [ -f "$work/done" ] && [ -d "$out" ]; then
    hash=$(hash_of "$out")
    if [ "$hash" = "$(cat "$work/done")" ]; then
        report "$hash reused"
        exit 0
    fi
    echo "corpus: $out was changed; making it anew" >&2
fi

[ -e "$out" ] && [ ! -d "$work" ] && fail "$out exists and was not made by this script"
rm -rf "$work/new" "$work/done"
mkdir -p "$work/new"
echo "$sources" | while read -r package pattern but; do
    [ -n "$package" ] || continue
    files=$(installed_files "$package" "$pattern" "$but") ||
        files=$(downloaded_files "$package" "$pattern" "$but") ||
        fail "$package is neither installed nor could it be downloaded"
    for file in $files; do
        name=$(basename "$file")
        if iconv -f UTF-8 -t UTF-8 "$file" >/dev/null 2>&1; then
            install -m 644 "$file" "$work/new/$package-${name%.*}.txt"
        else
            echo "corpus: left out $name: not UTF-8" >&2
        fi
    done
done
hash=$(hash_of "$work/new")
rm -rf "$out" "$work/root"
mv "$work/new" "$out"
echo "$hash" >"$work/done"
report "$hash"
[ "$bytes" -ge 10000000 ] || fail "$out holds less than 10 MB"
