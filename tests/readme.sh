#!/bin/bash
# SPDX-License-Identifier: MIT
# readme.sh: writes the table of `vdtool formats` into README.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${VDTOOL:=$here/../vdtool}"
cd "$here/.."
{
        sed '/^<!-- formats -->/q' README.md
        echo '```'
        "$VDTOOL" formats | sed 's/ *$//'
        echo '```'
        sed -n '/^<!-- end -->/,$p' README.md
} >README.md.new
mv README.md.new README.md
