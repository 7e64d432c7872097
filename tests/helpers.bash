# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# helpers.bash: what every tests/*.bats file loads.
#
# Each test runs in an empty directory of its own.  $VDTOOL is the program under test, $WRAPPER (valgrind -q ...) goes
# before it.  Captured output is kept outside of the directory, so that a test can say "nothing was left behind".

bats_require_minimum_version 1.5.0

ROOT=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
IMAGES=$ROOT/tests/images
: "${VDTOOL:=$ROOT/vdtool}"
: "${VDTOOL_CORPUS:=$ROOT/../shared/corpus}"
export ASAN_OPTIONS=exitcode=99:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=exitcode=99
export LC_ALL=C.UTF-8 NO_COLOR=1
unset SOURCE_DATE_EPOCH VDTOOL_FSYNC

status=0 output='' stderr='' stopped=''

setup() {
        mkdir "$BATS_TEST_TMPDIR/work"
        cd "$BATS_TEST_TMPDIR/work" || return 1
}

teardown() {
        [ -z "${stopped:-}" ] || kill -KILL "$stopped" || true
        cd / || return 1
        umount "$BATS_TEST_TMPDIR/work/small" 2>/dev/null || true
        rm -rf "$BATS_TEST_TMPDIR/work"
}

# shellcheck disable=SC2086
vdtool() { ${WRAPPER:-} "$VDTOOL" "$@"; }

# --- running ------------------------------------------------------------------------------------------------------------

# Runs a command; sets $status, $output (standard output) and $stderr.
capture() {
        status=0
        "$@" >"$BATS_TEST_TMPDIR/stdout" 2>"$BATS_TEST_TMPDIR/stderr" || status=$?
        output=$(tr -d '\0' <"$BATS_TEST_TMPDIR/stdout")
        stderr=$(tr -d '\0' <"$BATS_TEST_TMPDIR/stderr")
}

say() {
        printf '%s\n' "$@" >&2
        return 1
}

told() { say "status $status" "stdout: $output" "stderr: $stderr"; }

no_sanitizer() {
        case $stderr in
        *Sanitizer* | *"runtime error:"* | *"==ERROR"*) say "a sanitizer spoke:" "$stderr" ;;
        esac
}

# The lines of $stderr that report the failure (warnings and progress are not among them).
error_lines() { grep '^vdtool: ' <<<"$stderr" | grep -Ecv '^vdtool: (warning|note): '; }

# The command fails as a program should: exit status 1..125, no signal, no sanitizer, one line that says why.
fails_cleanly() {
        capture "$@"
        no_sanitizer || return 1
        if [ "$status" -eq 0 ] || [ "$status" -gt 125 ] || [ "$status" -eq 99 ]; then
                say "$*: expected a clean failure" || told
                return 1
        fi
        [ "$(error_lines)" -eq 1 ] || { say "$*: expected one error line" || told; }
}

# The same, and the message contains the text.
fails_with() {
        local text=$1
        shift
        fails_cleanly "$@" || return 1
        [[ $stderr == *"$text"* ]] || { say "$*: expected «$text» in the message" || told; }
}

# The command succeeds, whatever it prints.
succeeds() {
        capture "$@"
        no_sanitizer || return 1
        [ "$status" -eq 0 ] || { say "$*: expected success" || told; }
}

# Ends by itself, without a signal, a hang or a sanitizer report; any other status will do.
survives() {
        [ "$1" != vdtool ] || set -- "$VDTOOL" "${@:2}"
        capture timeout -k 5 60 "$@"
        no_sanitizer || return 1
        if [ "$status" -ge 124 ] || [ "$status" -eq 99 ]; then
                say "$*: crashed or hung" || told
                return 1
        fi
}

# Runs a command within 20 seconds of processor time and 512 MiB of address space (sanitizers need more).
bounded() {
        (
                ulimit -t 20
                grep -qE '__(a|t)san_init' "$VDTOOL" || [ -n "${WRAPPER:-}" ] || ulimit -v 524288
                "$@"
        )
}

# The directory holds exactly these names.
only_files() {
        local found expected
        found=$(find . -mindepth 1 -printf '%P\n' | sort)
        expected=$(printf '%s\n' "$@" | sed '/^$/d' | sort)
        [ "$found" = "$expected" ] || say "files found:" "$found" "expected:" "$expected"
}

# The command must fail; bash ignores a failing "! command" in the middle of a test.
refute() {
        if "$@"; then
                say "should have failed: ${*:1:4} ..."
        fi
}

same() { [ "$1" = "$2" ] || say "found:    $1" "expected: $2"; }

# --- faults -----------------------------------------------------------------------------------------------------------

# Calls that change files; strace injects into the n-th of them.
CHANGES=pwrite64,pwritev,pwritev2,copy_file_range,fallocate,ftruncate

# traced STRACE-OPTIONS -- VDTOOL-ARGUMENTS: with one thread, since strace counts the calls of each
traced() {
        local options=()
        while [ "$1" != -- ]; do
                options+=("$1")
                shift
        done
        shift
        # signals that a parent ignores (nohup, a shell's background) would stay ignored
        ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 env --default-signal=INT,HUP,TERM,PIPE \
                strace -f -o "$BATS_TEST_TMPDIR/trace" "${options[@]}" "$VDTOOL" "$@" \
                $([ "$1" != convert ] || echo -m 1)
}

# injected WHAT VDTOOL-ARGUMENTS: the fault strikes at changing calls as WHAT says, "error=ENOSPC:when=3+"
injected() {
        local what=$1
        shift
        traced -e "trace=$CHANGES" -e "inject=$CHANGES:$what" -- "$@"
}

# stop_at CALLS N VDTOOL-ARGUMENTS: runs until the n-th of these calls and leaves the process standing there
stop_at() {
        local calls=$1 n=$2
        shift 2
        : >"$BATS_TEST_TMPDIR/trace"
        traced -e "trace=$calls" -e "inject=$calls:signal=SIGSTOP:when=$n" -- "$@" \
                >/dev/null 2>"$BATS_TEST_TMPDIR/stderr" 3>&- &
        tracer=$!
        until grep -q 'stopped by SIGSTOP' "$BATS_TEST_TMPDIR/trace"; do
                if ! kill -0 $tracer 2>/dev/null; then
                        grep -q 'stopped by SIGSTOP' "$BATS_TEST_TMPDIR/trace" || say 'ended without a stop' || return 1
                fi
                sleep 0.02
        done
        stopped=$(awk '/stopped by SIGSTOP/ { print $1; exit }' "$BATS_TEST_TMPDIR/trace")
}

# Lets it end; sets $status and $stderr.
go_on() {
        status=0
        kill -CONT "$stopped"
        stopped=''
        wait $tracer || status=$?
        stderr=$(cat "$BATS_TEST_TMPDIR/stderr")
}

# --- material -----------------------------------------------------------------------------------------------------------

# fixture NAME [AS]: unpacks tests/images/NAME.xz here, under its own name or another; prints the name.
fixture() {
        local as=${2:-$1}
        # through a pipe: xz would leave holes, and readers tell them apart
        xz -dc "$IMAGES/$1.xz" | cat >"$as" || return 1
        echo "$as"
}

# What README.md in tests/images says about a fixture: column 1 file, 2 content sha256 (or -), 3 text of the error.
fixture_fact() { awk -F' *[|] *' -v f="$1" -v c="$2" '$2 == f { print $(c + 1) }' "$IMAGES/README.md"; }

requires() {
        local tool
        for tool; do
                case $tool in
                corpus) [ -f "$VDTOOL_CORPUS/MANIFEST.tsv" ] || skip "no corpus at $VDTOOL_CORPUS (VDTOOL_CORPUS)" ;;
                root) [ "$(id -u)" -eq 0 ] || skip "needs root" ;;
                *) command -v "$tool" >/dev/null || skip "needs $tool" ;;
                esac
        done
}

# corpus FILE: unpacks one file of the corpus here; prints its name.
corpus() {
        local base=${1##*/} name
        name=${base%.xz}
        name=${name%.bz2}
        name=${name%.gz}
        case $base in
        *.xz) xz -dc "$VDTOOL_CORPUS/$1" ;;
        *.bz2) bzip2 -dc "$VDTOOL_CORPUS/$1" ;;
        *.gz) gzip -dc "$VDTOOL_CORPUS/$1" ;;
        *) cat "$VDTOOL_CORPUS/$1" ;;
        esac | dd of="$name" bs=64k iflag=fullblock conv=sparse status=none
        chmod u+w "$name"
        echo "$name"
}

# corpus_directory DIR: unpacks all files of one directory of the corpus here.
corpus_directory() {
        local file
        for file in "$VDTOOL_CORPUS/$1"/*; do
                [ ! -f "$file" ] || corpus "$1/${file##*/}" >/dev/null
        done
}

# corpus_fact FILE COLUMN-NAME
corpus_fact() {
        awk -F'\t' -v f="$1" -v want="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == want) c = i }
                                           $1 == f { print $c }' "$VDTOOL_CORPUS/MANIFEST.tsv"
}

# Files of the corpus whose format is one of the arguments and whose content is known.
corpus_known() {
        awk -F'\t' -v formats=" $* " 'NR > 1 && index(formats, " " $4 " ") && $8 != "-" { print $1 }' \
                "$VDTOOL_CORPUS/MANIFEST.tsv"
}

# A raw disk with text, holes, noise and a marker in its last sector: disk_image FILE [BYTES].
disk_image() {
        local size=${2:-5244416}
        truncate -s "$size" "$1"
        seq 1 9000 | dd of="$1" conv=notrunc status=none
        openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 00 -in /dev/zero 2>/dev/null |
                head -c 200000 | dd of="$1" bs=1000 seek=1111 conv=notrunc status=none
        yes 'the same line again' | head -c 300000 | dd of="$1" bs=4096 seek=700 conv=notrunc status=none
        truncate -s "$size" "$1"
        printf 'last sector' | dd of="$1" bs=1 seek=$((size - 512)) conv=notrunc status=none
}

# --- bytes --------------------------------------------------------------------------------------------------------------

sha256() { openssl dgst -sha256 -r "$1" | cut -d' ' -f1; }
size_of() { stat -c %s "$1"; }
blocks_of() { stat -c %b "$1"; }

# poke FILE OFFSET HEX...: overwrites bytes in place.
poke() {
        local file=$1 offset=$2 hex
        shift 2
        hex=$(printf '%s' "$@" | tr -d ' ')
        printf '%b' "$(sed 's/../\\x&/g' <<<"$hex")" | dd of="$file" bs=1 seek="$((offset))" conv=notrunc status=none
}

# peek FILE OFFSET COUNT: bytes as hexadecimal digits.
peek() { od -An -v -tx1 -j "$(($2))" -N "$3" "$1" | tr -d ' \n'; }
peek_number() { echo "$((16#$(peek "$@")))"; }

# --- images -------------------------------------------------------------------------------------------------------------

# The SHA-256 of what a guest would see, as vdtool reads it.
content() {
        local raw=$BATS_TEST_TMPDIR/content.raw
        rm -f "$raw"
        vdtool convert -O raw "$@" "$raw" >&2 || return 1
        sha256 "$raw"
        rm -f "$raw"
}

# The same as qemu-img reads it: content_qemu FORMAT FILE.  qemu-img takes vhd's sizes from CHS unless told otherwise.
content_qemu() {
        local raw=$BATS_TEST_TMPDIR/content-qemu.raw
        rm -f "$raw"
        qemu-img convert -f "$1" -O raw "$2" "$raw" || return 1
        sha256 "$raw"
        rm -f "$raw"
}

# The same as 7-Zip reads it: content_7z FILE [TYPE].
content_7z() { 7zz e -so -t"${2:-vhd}" "$1" 2>/dev/null | openssl dgst -sha256 -r | cut -d' ' -f1; }

qemu_name() {
        case $1 in
        vhd) echo vpc ;;
        *) echo "$1" ;;
        esac
}

# The formats that vdtool can make.
creatable() { vdtool formats --output json | jq -r '.[] | select(.create) | .name'; }

# Does qemu-img know this format?
qemu_knows() { qemu-img --help | sed -n 's/^Supported formats://p' | grep -qw -- "$(qemu_name "$1")"; }

# judge FORMAT FILE RAW: readers that are not ours find the disk RAW in FILE, and nothing wrong with FILE.
judge() {
        local format=$1 file=$2 raw=$3 as
        as=$(qemu_name "$format")
        qemu-img compare -q -f "$as" -F raw "$file" "$raw" || say "qemu-img compare: $file differs from $raw" || return 1
        case $format in
        qcow2)
                qemu-img check -q "$file" || say "qemu-img check: $file" || return 1
                # libqcow knows no incompatible features
                [ "$(peek "$file" 4 4)$(peek "$file" 72 8)" != 000000030000000000000000 ] || qcowinfo "$file" >/dev/null ||
                        say "qcowinfo: $file" || return 1
                ;;
        vhd)
                7zz t -tvhd "$file" >/dev/null || say "7zz t: $file" || return 1
                vhdiinfo "$file" >/dev/null || say "vhdiinfo: $file" || return 1
                same "$(content_7z "$file")" "$(sha256 "$raw")" || say "7zz reads other bytes" || return 1
                ;;
        esac
}
