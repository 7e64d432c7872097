# SPDX-License-Identifier: MIT
# fish completion for vdtool: every word comes from the program's own option tables.

function __vdtool_commands
    vdtool --list-commands=described 2>/dev/null | string replace -r '\t[^\t]*\t' \t
end

complete -c vdtool -f
complete -c vdtool -n __fish_use_subcommand -a '(__vdtool_commands)'
complete -c vdtool -n __fish_use_subcommand -s h -l help -d 'print help'
complete -c vdtool -n __fish_use_subcommand -s V -l version -d 'print the version'

for entry in (vdtool --list-commands=described 2>/dev/null)
    set -l fields (string split \t -- $entry)
    set -l command $fields[1]
    set -l condition "__fish_seen_subcommand_from $command"

    # Operands.
    switch "$fields[2]"
        case file
            complete -c vdtool -n $condition -F
        case format
            complete -c vdtool -n $condition -a '(vdtool formats --names)'
        case command
            complete -c vdtool -n $condition -a '(__vdtool_commands)'
    end

    for option in (vdtool $command --list-options 2>/dev/null)
        set -l option_fields (string split \t -- $option)
        set -l kind $option_fields[3]
        set -l words -c vdtool -n $condition -l (string sub -s 3 -- $option_fields[2]) -d "$option_fields[4]"

        if test -n "$option_fields[1]"
            set words $words -s (string sub -s 2 -- $option_fields[1])
        end
        # A value that may be left out ("?...") is not asked for.
        if not string match -q -r '^(\?|$)' -- "$kind"
            switch "$kind"
                case file
                    set words $words -r -F
                case format
                    set words $words -x -a '(vdtool formats --names)'
                case '=*'
                    set words $words -x -a (string sub -s 2 -- $kind)
                case '*'
                    set words $words -x
            end
        end
        complete $words
    end
end
