# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# vmdk.bash: makes VMDK extents byte by byte, for kinds that no tool at hand writes.  Needs poke() and ascii().

l16() { printf '%02x%02x' $(($1 & 255)) $(($1 >> 8 & 255)); }
l32() { l16 $(($1 & 65535)) && l16 $(($1 >> 16 & 65535)); }
l64() { l32 $(($1 & 0xffffffff)) && l32 $(($1 >> 32 & 0xffffffff)); }
hex_of() { printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n'; }

# vmdk_descriptor FILE TYPE CID PARENT_CID LINE...: a descriptor of its own
vmdk_descriptor() {
        local file=$1 type=$2 cid=$3 parent=$4
        shift 4
        {
                printf '# Disk DescriptorFile\nversion=1\nCID=%s\nparentCID=%s\ncreateType="%s"\n' "$cid" "$parent" "$type"
                [ -z "${PARENT:-}" ] || printf 'parentFileNameHint="%s"\n' "$PARENT"
                printf '\n# Extent description\n'
                printf '%s\n' "$@"
                printf '\n# The Disk Data Base \n#DDB\n\nddb.adapterType = "lsilogic"\n'
        } >"$file"
}

# grain FILE SECTOR SECTORS LETTER: fills a grain
grain() { head -c $(($3 * 512)) /dev/zero | tr '\0' "$4" | dd of="$1" bs=512 seek="$2" conv=notrunc status=none; }

# kdmv FILE CAPACITY FLAGS VERSION: an extent with one table, no descriptor, grains of 128 sectors from sector 128 on
kdmv() {
        truncate -s 64K "$1"
        poke "$1" 0 "$(hex_of KDMV)$(l32 "$4")$(l32 "$3")$(l64 "$2")$(l64 128)$(l64 0)$(l64 0)$(l32 512)" \
                "$(l64 1)$(l64 6)$(l64 128)000a200d0a"
        poke "$1" 512 "$(l32 2)"
        poke "$1" 3072 "$(l32 7)"
}

# kdmv_entry FILE INDEX VALUE: in the table and its copy
kdmv_entry() {
        poke "$1" $((3584 + 4 * $2)) "$(l32 "$3")"
        poke "$1" $((1024 + 4 * $2)) "$(l32 "$3")"
}

# cowd FILE SECTORS GRAIN: an empty COWD extent with all its tables
cowd() {
        local tables=$((($2 + 4096 * $3 - 1) / (4096 * $3))) i
        local first=$((4 + (tables * 4 + 511) / 512))
        truncate -s $(((first + tables * 32) * 512)) "$1"
        poke "$1" 0 "$(hex_of COWD)$(l32 1)$(l32 3)$(l32 "$2")$(l32 "$3")$(l32 4)$(l32 "$tables")" \
                "$(l32 $((first + tables * 32)))"
        for ((i = 0; i < tables; i++)); do
                poke "$1" $((2048 + 4 * i)) "$(l32 $((first + 32 * i)))"
        done
}

# cowd_grain FILE SECTORS GRAIN INDEX LETTER: appends a grain
cowd_grain() {
        local tables=$((($2 + 4096 * $3 - 1) / (4096 * $3)))
        local first=$((4 + (tables * 4 + 511) / 512)) next=$(($(stat -c %s "$1") / 512))
        grain "$1" $next "$3" "$5"
        poke "$1" $((first * 512 + 4 * $4)) "$(l32 $next)"
        poke "$1" 28 "$(l32 $((next + $3)))"
}

# sesparse FILE SECTORS: header, volatile header, directory at 8, two tables from 16, grains from 256 on
sesparse() {
        truncate -s $((256 * 512)) "$1"
        poke "$1" 0 "$(l64 0xcafebabe)$(l64 0x200000001)$(l64 "$2")$(l64 8)$(l64 64)"
        poke "$1" 80 "$(l64 1)$(l64 1)$(l64 2)$(l64 1)$(l64 3)$(l64 1)$(l64 8)$(l64 1)$(l64 16)$(l64 128)" \
                "$(l64 144)$(l64 1)$(l64 145)$(l64 1)$(l64 256)$(l64 65536)"
        poke "$1" 512 "$(l64 0xcafecafe)"
        poke "$1" 4096 "$(l64 0x1000000000000000)$(l64 0x1000000000000001)"
}

# sesparse_entry FILE INDEX VALUE
sesparse_entry() { poke "$1" $((8192 + 8 * $2)) "$(l64 "$3")"; }

# stream_grain FILE SECTOR LBA RAW: the record of a grain made of RAW; prints how many sectors it takes
stream_grain() {
        local packed size
        packed=$(mktemp)
        # gzip's deflate stream (header of 10 bytes, trailer of 8) in a zlib wrapper
        gzip -nc "$4" | tail -c +11 | head -c -8 >"$packed.body"
        { printf '\x78\x9c' && cat "$packed.body"; } >"$packed"
        poke "$packed" "$(stat -c %s "$packed")" "$(adler32 "$4")"
        size=$(stat -c %s "$packed")
        poke "$1" $(($2 * 512)) "$(l64 "$3")$(l32 "$size")"
        dd if="$packed" of="$1" bs=1 seek=$(($2 * 512 + 12)) conv=notrunc status=none
        truncate -s "%512" "$1"
        rm -f "$packed" "$packed.body"
        echo $(((size + 12 + 511) / 512))
}

# The checksum of RFC 1950, big-endian.
adler32() {
        od -An -v -tu1 -w1 "$1" | awk 'BEGIN { a = 1 } { a = (a + $1) % 65521; b = (b + a) % 65521 }
                                        END { printf "%04x%04x", b, a }'
}

# stream_marker FILE SECTOR COUNT TYPE
stream_marker() { poke "$1" $(($2 * 512)) "$(l64 "$3")$(l32 0)$(l32 "$4")" && truncate -s "%512" "$1"; }
