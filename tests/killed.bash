# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# shellcheck disable=SC2154  # capture sets status, output and stderr
# killed.bash: for formats that are written in place: what is left when the program dies, or the file is cut.

# Positions of the bytes in which two files differ.
differing() { cmp -l "$1" "$2" 2>/dev/null | awk '{ print $1 }' | sort; }

# killed_everywhere FORMAT OPTIONS: an image full of old data is overwritten; the program is killed at its first write, its
# second ... Afterwards the image opens, has lost space at worst, and each byte is the old or the new one.
killed_everywhere() {
        local format=$1 options=$2 n done=0 size=$((200 * 1024))
        head -c $size /dev/zero | tr '\0' o >old.raw
        dd if=/dev/zero of=old.raw bs=4k seek=20 count=15 conv=notrunc status=none
        head -c $size /dev/zero | tr '\0' n >new.raw
        dd if=/dev/zero of=new.raw bs=4k seek=5 count=10 conv=notrunc status=none
        vdtool convert -q --force -f raw -O "$format" -o "$options" old.raw start
        for n in $(seq 1 60); do
                cp start image
                capture strace -f -qq -o /dev/null -e trace=pwrite64 -e inject=pwrite64:signal=KILL:when="$n" \
                        "$VDTOOL" convert -q -n -f raw -O "$format" new.raw image
                capture vdtool check image
                [[ $status == [03] ]] || say "check after write $n" || told || return 1
                vdtool convert -q --force -f "$format" -O raw image now.raw || say "after write $n" || return 1
                [ -z "$(comm -12 <(differing now.raw old.raw) <(differing now.raw new.raw))" ] ||
                        say "neither old nor new after write $n" || return 1
                if cmp -s now.raw new.raw; then
                        done=$((done + 1))
                        [ $done -lt 3 ] || break
                fi
        done
        [ $done -gt 0 ] || say "never came to an end"
}

# cut_everywhere IMAGE SHA256 CUTS: IMAGE cut at CUTS places and some more
cut_everywhere() {
        local image=$1 want=$2 cuts=$3 size at failed=0
        size=$(size_of "$image")
        for at in $(seq 0 $((size / cuts + 1)) $((size - 1))) 1 47 63 64 511 512 513 $((size - 512)) $((size - 1)); do
                head -c "$at" "$image" >cut.image
                rm -f out.raw
                capture vdtool convert -f "${image##*.}" -O raw cut.image out.raw
                no_sanitizer || return 1
                if [ "$status" -eq 0 ]; then
                        same "$(sha256 out.raw)" "$want" || say "cut at $at" || return 1
                else
                        failed=$((failed + 1))
                        same "$status $(error_lines)" '1 1' || say "cut at $at" || told || return 1
                        [ ! -e out.raw ] || say "cut at $at left a file" || return 1
                fi
        done
        rm -f cut.image out.raw
        [ $failed -gt 0 ] || say "no cut was noticed"
}
