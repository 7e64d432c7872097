# SPDX-License-Identifier: MIT
# bash completion for vdtool: every word comes from the program's own option tables.

_vdtool_values()        # KIND CUR: what an option or operand of this kind may be
{
        local kind=${1#\?}

        case $kind in
        file)   compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$2") ;;
        format) mapfile -t COMPREPLY < <(compgen -W "$(vdtool formats --names 2>/dev/null)" -- "$2") ;;
        command) mapfile -t COMPREPLY < <(compgen -W "$(vdtool --list-commands 2>/dev/null)" -- "$2") ;;
        =*)     mapfile -t COMPREPLY < <(compgen -W "${kind#=}" -- "$2") ;;
        esac
}

_vdtool()
{
        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
        local line letter long kind joined=false words=()

        COMPREPLY=()
        if (( COMP_CWORD == 1 )); then
                mapfile -t COMPREPLY < <(compgen -W "$(vdtool --list-commands 2>/dev/null) --help --version" -- "$cur")
                return
        fi
        # bash makes three words of --name=value.
        if [[ $cur == = ]]; then
                cur='' joined=true
        elif [[ $prev == = ]]; then
                prev=${COMP_WORDS[COMP_CWORD-2]} joined=true
        fi
        while IFS= read -r line; do
                letter=${line%%$'\t'*} line=${line#*$'\t'}
                long=${line%%$'\t'*} line=${line#*$'\t'}
                kind=${line%%$'\t'*}
                words+=("$long")
                [[ $prev == "$long" || ( -n $letter && $prev == "$letter" ) ]] || continue
                # A value that may be left out has to follow "=".
                [[ -z $kind || ( $kind == \?* && $joined == false ) ]] && continue
                _vdtool_values "$kind" "$cur"
                return
        done < <(vdtool "$command" --list-options 2>/dev/null)
        if [[ $cur == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "${words[*]} --help" -- "$cur")
                return
        fi
        while IFS= read -r line; do
                [[ $line == "$command"$'\t'* ]] || continue
                line=${line#*$'\t'}
                _vdtool_values "${line%%$'\t'*}" "$cur"
        done < <(vdtool --list-commands=described 2>/dev/null)
}

complete -F _vdtool vdtool
