#!/bin/sh
# Fetch NVIDIA's own MPS control program into the folder $1, for the tests: package nvidia-cuda-mps of
# Debian's component "non-free". The system's package sources and lists stay as they are: copies of
# the configured sources, with that component in the place of "main", are used this once. Needs apt;
# does not need root. Where it cannot be had, it says why in one line and the tests skip.
set -u
folder=$1
program=$folder/usr/bin/nvidia-cuda-mps-control
[ -x "$program" ] && exit 0

give_up() {
    echo "no MPS control program for the tests: $1"
    mkdir -p "$folder" && echo "$1" > "$folder/why-not"
    exit 0
}

command -v apt-get > /dev/null && command -v dpkg > /dev/null || give_up "there is no apt here"
work=$(mktemp -d) || give_up "no temporary folder can be made"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/sources" "$work/lists/partial" "$work/cache/archives/partial" "$folder"
chmod 755 "$work"  # apt downloads as a user of its own

for file in /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] && awk -v RS= -v ORS='\n\n' '/(^|\n)Components:[^\n]*main/ {
        gsub(/(^|\n)Components:[^\n]*/, "\nComponents: non-free")
        gsub(/(^|\n)Types:[^\n]*/, "\nTypes: deb")
        sub(/^\n/, ""); print
    }' "$file" > "$work/sources/$(basename "$file")"
done
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$file" ] && sed -nE 's/^(deb( \[[^]]*\])? [^ ]+ [^ ]+) .*main.*/\1 non-free/p' \
        "$file" > "$work/sources/$(basename "$file")"
done

apt() {
    apt-get -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources" \
        -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" \
        -o Acquire::Retries=0 -o Acquire::http::Timeout=20 -qq "$@" > "$work/said" 2>&1
}

apt update || give_up "apt-get update failed: $(tail -n 1 "$work/said")"
(cd "$work" && apt download nvidia-cuda-mps) ||
    give_up "package nvidia-cuda-mps cannot be downloaded: $(tail -n 1 "$work/said")"
dpkg -x "$work"/nvidia-cuda-mps_*.deb "$folder" || give_up "the package cannot be unpacked"
[ -x "$program" ] || give_up "the package holds no nvidia-cuda-mps-control"
rm -f "$folder/why-not"
echo "NVIDIA's MPS control program is in $folder"
