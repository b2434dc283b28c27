"""What makes each shell ask ``fractal-ifs completion query LINE`` at a tab, and show what that prints."""

BASH = """\
_fractal_ifs() {  # the word as bash sees it, then the command that answers
    local IFS=$'\\n' line=${COMP_LINE:0:COMP_POINT} seen=$1 word
    word=${line##*[[:space:]]}
    shift
    COMPREPLY=($("$@" completion query "$line" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"${word%"$seen"}"}")  # bash sees only what follows a =
    [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == *[=./] ]] && compopt -o nospace 2>/dev/null
    return 0
}
_fractal_ifs_command() {
    _fractal_ifs "$2" "${1/#\\~\\//$HOME/}"
}
_fractal_ifs_python() {
    if [[ ${COMP_WORDS[1]} == -m && ${COMP_WORDS[2]} == fractal_ifs* ]]; then
        _fractal_ifs "$2" "${1/#\\~\\//$HOME/}" -m fractal_ifs
        return
    fi
    if [[ ! ${_fractal_ifs_other_python+known} ]]; then  # bash-completion loads what it has for python when it is asked
        complete -r python
        { _comp_load python || _completion_loader python; } &>/dev/null
        _fractal_ifs_take_python
    fi
    [[ ! $_fractal_ifs_other_python ]] || "$_fractal_ifs_other_python" "$@"
}
_fractal_ifs_take_python() {  # from what completes python now, which is asked for all that isn't ours
    local before=$(complete -p python 2>/dev/null | sed -nE 's/.* -F ([^ ]+) .*/\\1/p')
    [[ $before == _fractal_ifs_python ]] || _fractal_ifs_other_python=$before
    complete -o default -F _fractal_ifs_python python python3
}
complete -o default -F _fractal_ifs_command fractal-ifs
_fractal_ifs_take_python
[[ $_fractal_ifs_other_python ]] || unset _fractal_ifs_other_python
"""

ZSH = """\
_fractal_ifs() {  # the command that answers
    local -a found
    found=(${(f)"$("$@" completion query "${(j: :)words[1,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then
        compadd -S '' -- ${(M)found:#*[=./]}
        compadd -- ${found:#*[=./]}
    else
        compset -P '*='
        _files
    fi
}
_fractal_ifs_command() { _fractal_ifs ${(Q)words[1]/#\\~\\//$HOME/} }
_fractal_ifs_python() {
    if [[ $words[2] == -m && $words[3] == fractal_ifs* ]]; then
        _fractal_ifs ${(Q)words[1]/#\\~\\//$HOME/} -m fractal_ifs
    else
        _python
    fi
}
compdef _fractal_ifs_command fractal-ifs
compdef _fractal_ifs_python python python3
"""

FISH = """\
function _fractal_ifs  # the command that answers
    set -l found ($argv completion query (commandline -cp | string collect) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        set -l key (string match -r '^[^=]*=' -- (commandline -ct); or echo)
        printf '%s\\n' $key(__fish_complete_path (string replace -r '^[^=]*=' '' -- (commandline -ct)))
    end
end
complete -c fractal-ifs -f -a '(_fractal_ifs (commandline -cpo)[1])'
for python in python python3
    complete -c $python -n 'string match -qr "^\\S+\\s+-m\\s+fractal_ifs" -- (commandline -cp)' -f \\
        -a '(_fractal_ifs (commandline -cpo)[1] -m fractal_ifs)'
end
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
LINES = {
    "bash": 'eval "$(fractal-ifs completion bash)"',
    "zsh": 'eval "$(fractal-ifs completion zsh)"',
    "fish": "fractal-ifs completion fish | source",
}
