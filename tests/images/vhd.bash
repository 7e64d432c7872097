# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# vhd.bash: makes VHD structures byte by byte, for images that no tool at hand writes.

b32() { printf '%08x' $(($1 & 0xffffffff)); }
b64() { printf '%016x' "$1"; }
ascii() { printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n'; }
utf16be() { printf '%s' "$1" | iconv -t UTF-16BE | od -An -v -tx1 | tr -d ' \n'; }
utf16le() { printf '%s' "$1" | iconv -t UTF-16LE | od -An -v -tx1 | tr -d ' \n'; }
# Hexadecimal digits padded with zeros to this many bytes.
padded() { printf '%s%0*d' "$2" $((2 * $1 - ${#2})) 0 | head -c $((2 * $1)); }
bytes() { sed 's/../\\x&/g' <<<"$1" | while IFS= read -r line; do printf '%b' "$line"; done; }

# The one's complement of the sum of all bytes.
vhd_sum() {
        local byte total=0
        for byte in $(fold -w2 <<<"$1"); do
                total=$((total + 0x$byte))
        done
        b32 $((~total))
}

# vhd_footer TYPE SIZE DATA_OFFSET UUID [CREATOR [CYLINDERS HEADS SECTORS]]: type 2 fixed, 3 dynamic, 4 differencing
vhd_footer() {
        local head tail sum
        head=$(ascii conectix)$(b32 2)$(b32 65536)$(b64 "$3")$(b32 760000000)$(ascii "${5:-win }")$(b32 0xa0000)$(ascii Wi2k)
        head+=$(b64 "$2")$(b64 "$2")$(printf '%04x%02x%02x' "${6:-65535}" "${7:-16}" "${8:-255}")$(b32 "$1")
        tail=$(padded 444 "$4")
        sum=$(vhd_sum "$head$tail")
        printf '%s%s%s' "$head" "$sum" "$tail"
}

# vhd_header TABLE_OFFSET ENTRIES BLOCK_BYTES [PARENT_UUID PARENT_NAME LOCATORS]: LOCATORS up to 192 bytes as hex
vhd_header() {
        local head tail sum
        head=$(ascii cxsparse)$(b64 -1)$(b64 "$1")$(b32 65536)$(b32 "$2")$(b32 "$3")
        tail=$(padded 16 "${4:-}")$(b32 0)$(b32 0)$(padded 512 "$(utf16be "${5:-}")")$(padded 192 "${6:-}")$(padded 256 "")
        sum=$(vhd_sum "$head$tail")
        printf '%s%s%s' "$head" "$sum" "$tail"
}

# vhd_locator CODE SPACE LENGTH OFFSET
vhd_locator() { printf '%s%s%s%s%s' "$(ascii "$1")" "$(b32 "$2")" "$(b32 "$3")" "$(b32 0)" "$(b64 "$4")"; }

# vhd_reseal FILE: writes right checksums into both footers and the dynamic header after bytes were changed.
vhd_reseal() {
        local file=$1 end
        end=$(($(stat -c %s "$file") - 512))
        vhd_reseal_at "$file" "$end" 512 64
        if [ "$(od -An -c -N 8 "$file" | tr -d ' ')" = conectix ]; then
                vhd_reseal_at "$file" 0 512 64
                vhd_reseal_at "$file" 512 1024 36
        fi
}

# vhd_reseal_at FILE OFFSET LENGTH FIELD
vhd_reseal_at() {
        local hex
        hex=$(od -An -v -tx1 -j "$2" -N "$3" "$1" | tr -d ' \n')
        hex=${hex:0:$((2 * $4))}00000000${hex:$((2 * $4 + 8))}
        bytes "$(vhd_sum "$hex")" | dd of="$1" bs=1 seek=$(($2 + $4)) conv=notrunc status=none
}
