#!/bin/sh
# Fetch a Chromium without a window into the folder $1, for the tests of the page: Debian's package
# chromium-headless-shell and those of its libraries that this system lacks, unpacked and not installed.
# Nothing to do where a Chromium is on PATH. Needs apt; does not need root. Where it cannot be had, it
# says why in one line and the tests skip.
set -u
folder=$1
program=$folder/chromium
[ -x "$program" ] && exit 0
for name in chromium chromium-browser google-chrome-stable google-chrome; do
    command -v "$name" > /dev/null && exit 0
done

give_up() {
    echo "no Chromium for the tests of the page: $1"
    mkdir -p "$folder" && echo "$1" > "$folder/why-not"
    exit 0
}

command -v apt-get > /dev/null && command -v dpkg > /dev/null || give_up "there is no apt here"
work=$(mktemp -d) || give_up "no temporary folder can be made"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$folder"
chmod 755 "$work"  # apt downloads as a user of its own
cp "${DPKG_STATUS:-/var/lib/dpkg/status}" "$work/status" || give_up "dpkg's status cannot be read"

apt() {
    apt-get -o Dir::State="$work" -o Dir::State::lists="$work/lists" \
        -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" -o Debug::NoLocking=1 \
        -o Acquire::Retries=0 -o Acquire::http::Timeout=20 -qq "$@" > "$work/said" 2>&1
}

apt update || give_up "apt-get update failed: $(tail -n 1 "$work/said")"
apt install --yes --download-only --no-install-recommends chromium-headless-shell fonts-dejavu-core ||
    give_up "chromium-headless-shell cannot be downloaded: $(tail -n 1 "$work/said")"
for package in "$work"/cache/archives/*.deb; do
    dpkg -x "$package" "$folder" || give_up "a package cannot be unpacked: $package"
done
found=$(find "$folder/usr/lib" -type f -name 'chromium*headless*' -perm -u+x | head -n 1)
[ -n "$found" ] || give_up "the packages hold no headless Chromium"
root=$(cd "$folder" && pwd)
libraries=$(find "$root/lib" "$root/usr/lib" -name '*.so*' -exec dirname {} + 2> /dev/null |
    sort -u | tr '\n' ':')
fonts=/etc/fonts
[ -d "$root/etc/fonts" ] && fonts=$root/etc/fonts
cat > "$program" << END
#!/bin/sh
export LD_LIBRARY_PATH="$libraries\${LD_LIBRARY_PATH:-}" FONTCONFIG_PATH="$fonts"
exec "$root/${found#"$folder"/}" "\$@"
END
chmod 755 "$program"
"$program" --version > /dev/null 2> "$work/said" ||
    { rm -f "$program"; give_up "it does not start: $(tail -n 1 "$work/said")"; }
rm -f "$folder/why-not"
echo "a headless Chromium is in $folder"
