#compdef vdtool
# SPDX-License-Identifier: MIT
# zsh completion for vdtool: every word comes from the program's own option tables.

# What completes a value of this kind, as an action of _arguments.
_vdtool_action() {
        case ${1#\?} in
        file) REPLY=_files ;;
        format) REPLY='($(vdtool formats --names))' ;;
        command) REPLY='($(vdtool --list-commands))' ;;
        =*) REPLY="(${${1#\?}#=})" ;;
        *) REPLY=' ' ;;
        esac
}

_vdtool() {
        local line help REPLY
        local -a fields specs commands

        if (( CURRENT == 2 )); then
                for line in ${(f)"$(vdtool --list-commands=described 2>/dev/null)"}; do
                        fields=("${(@ps:\t:)line}")
                        commands+=("$fields[1]:$fields[3]")
                done
                _describe command commands
                return
        fi
        for line in ${(f)"$(vdtool $words[2] --list-options 2>/dev/null)"}; do
                fields=("${(@ps:\t:)line}")
                help=${${${fields[4]//\\/\\\\}//\[/\\[}//\]/\\]}
                help=${help//:/\\:}
                _vdtool_action "$fields[3]"
                case $fields[3] in
                '')
                        specs+=("*$fields[2][$help]")
                        [[ -n $fields[1] ]] && specs+=("*$fields[1][$help]") ;;
                \?*)
                        specs+=("*$fields[2]=-[$help]::value:$REPLY")
                        [[ -n $fields[1] ]] && specs+=("*$fields[1][$help]") ;;
                *)
                        specs+=("*$fields[2]=[$help]:value:$REPLY")
                        [[ -n $fields[1] ]] && specs+=("*$fields[1]+[$help]:value:$REPLY") ;;
                esac
        done
        REPLY=_files
        for line in ${(f)"$(vdtool --list-commands=described 2>/dev/null)"}; do
                fields=("${(@ps:\t:)line}")
                [[ $fields[1] == $words[2] ]] && _vdtool_action "$fields[2]"
        done
        shift words
        (( CURRENT-- ))
        _arguments -s $specs "*:operand:$REPLY"
}

_vdtool "$@"
