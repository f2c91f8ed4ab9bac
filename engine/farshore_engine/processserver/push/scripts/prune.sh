# Removes bundles other than the one in use and the one before it, and what broken installations left. Variables: ROOT, ID.
# shellcheck shell=sh disable=SC2154
set -eu
cd "$ROOT"
previous=$(cat .previous 2>/dev/null || true)
for path in * .partial-* .upload-*; do
    case $path in
    "$ID" | "$previous" | current) ;;
    *) if [ -d "$path" ]; then rm -rf "./$path"; fi ;;
    esac
done
