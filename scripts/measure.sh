# Measurements for the benchmarks: seconds, memory, ratios within a round, verdicts. It is sourced, not run, and needs
# the variable `work`: a temporary folder of the caller.
# shellcheck shell=bash disable=SC2154

declare -A seconds cpu peak times # by name; seconds holds the newest run only
# Runs a command, and records under a name: elapsed seconds, CPU seconds, and the memory of its largest process (KiB).
measure() {
    local name=$1 begin end
    shift
    sync
    begin=$EPOCHREALTIME
    if ! /usr/bin/time -q -f '%U %S %M' -o "$work/peak" "$@" >"$work/stdout" 2>"$work/stderr"; then
        say "FAILED: $*"
        tail -n 5 "$work/stderr" >&2
        fail "a measured command failed: $name"
    fi
    end=$EPOCHREALTIME
    seconds[$name]=$(awk -v a="$begin" -v b="$end" 'BEGIN { printf "%.3f", b - a }')
    times[$name]+=" ${seconds[$name]}"
    local user system memory
    read -r user system memory < <(tail -n 1 "$work/peak")
    # shellcheck disable=SC2034  # the caller reads it
    cpu[$name]=$(awk -v a="$user" -v b="$system" 'BEGIN { printf "%.2f", a + b }')
    [ "$memory" -le "${peak[$name]:-0}" ] || peak[$name]=$memory
}
# Measures a shell command line.
shell() { measure "$1" bash -c "$2"; }

declare -A ratios
# Records the ratio of two numbers of seconds that were measured in this round.
ratio() {
    local name=$1 ours=$2 peer=$3
    ratios[$name]+=" $(awk -v a="$ours" -v b="$peer" 'BEGIN { printf "%.4f", (b > 0) ? a / b : 999 }')"
}
median() {
    printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { printf "%.3f", (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
# Prints a number from a JSON document: the first field of that name.
field() {
    tr -d '\n' <"$1" | grep -o "\"$2\" *: *[0-9.eE+-]*" | head -n 1 | sed 's/.*: *//'
}
bytes_of() { stat -c %s "$1"; }
archive_bytes() { find "$1" -name '*.tar.*' -printf '%s\n' | awk '{ s += $1 } END { print s + 0 }'; }

missed=0
verdict() { # name, value, target, unit
    local result=ok
    if [ -z "$2" ]; then
        result='not measured'
        missed=1
    elif awk -v a="$2" -v b="$3" 'BEGIN { exit !(a > b) }'; then
        result=MISSED
        missed=1
    fi
    printf '  %-52s %8s %8s  %s\n' "$1" "${2:--}${4:-}" "$3${4:-}" "$result"
}

# shellcheck disable=SC2086 # the lists are to be split into words
middle() { [ -z "${1:-}" ] || median $1; }
show() {
    printf '  %-52s %8s s %6s MB\n' "$1" "$(middle "${times[$2]:-}")" "$((${peak[$2]:-0} / 1024))"
}
info() { printf '  %-52s %8s        -  for information\n' "$1" "$2"; }

# Prints the overall result, and exits with 0 if all targets are met, otherwise with 1.
conclude() {
    printf '\n'
    if [ "$missed" = 0 ]; then
        printf 'Every target is met.\n'
    else
        printf 'A target is MISSED.\n'
    fi
    exit "$missed"
}
