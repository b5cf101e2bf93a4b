package manual

import (
	"strings"

	"kiste/fault"
)

// Completion is the script that makes shell complete the words of program. It
// asks "program __complete" at every press of the key, so it never grows old.
func Completion(program, shell string) (string, error) {
	script := ""
	switch shell {
	case "bash":
		script = bashCompletion
	case "zsh":
		script = zshCompletion
	case "fish":
		script = fishCompletion
	default:
		return "", &fault.Error{Op: "complete for shell", On: shell, Kind: fault.Invalid, Hint: "bash, zsh and fish are known"}
	}
	return strings.ReplaceAll(script, "PROGRAM", program), nil
}

// The scripts hand the words up to the cursor to "PROGRAM __complete" and show
// what it prints: a word and, after a tab, what it is. The line ":files" or
// ":dirs" asks the shell for names of files.
const (
	bashCompletion = `# bash completion for PROGRAM
_PROGRAM() {
	local cur="${COMP_WORDS[COMP_CWORD]}" line
	COMPREPLY=()
	# bash takes words apart at colons and equal signs; PROGRAM wants them whole
	if declare -F _get_comp_words_by_ref >/dev/null; then
		local words cword
		_get_comp_words_by_ref -n =: cur words cword
	else
		local words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
	fi
	while IFS= read -r line; do
		case "$line" in
		:files) compopt -o default ;;
		:dirs) compopt -o dirnames -o nospace ;;
		*) COMPREPLY+=("${line%%$'\t'*}") ;;
		esac
	done < <("${words[0]}" __complete "${words[@]:1:cword}" 2>/dev/null)
	if declare -F __ltrim_colon_completions >/dev/null; then
		__ltrim_colon_completions "$cur"
	fi
}
complete -F _PROGRAM PROGRAM
`
	zshCompletion = `#compdef PROGRAM
_PROGRAM() {
	local line word
	local -a found
	for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
		case "$line" in
		:files) _files ;;
		:dirs) _files -/ ;;
		'') ;;
		*)
			word="${${line%%$'\t'*}//:/\\:}"
			if [[ "$line" == *$'\t'* ]]; then
				found+=("$word:${line#*$'\t'}")
			else
				found+=("$word")
			fi
			;;
		esac
	done
	(( ${#found} )) && _describe PROGRAM found
}
if [[ "${funcstack[1]}" == _PROGRAM ]]; then
	_PROGRAM "$@"
else
	compdef _PROGRAM PROGRAM
fi
`
	fishCompletion = `# fish completion for PROGRAM
function _PROGRAM_complete
	set -l words (commandline -opc) (commandline -ct)
	for line in ($words[1] __complete $words[2..-1] 2>/dev/null)
		switch $line
			case :files
				__fish_complete_path (commandline -ct)
			case :dirs
				__fish_complete_directories (commandline -ct) ''
			case '*'
				echo $line
		end
	end
end
complete -c PROGRAM -f -a '(_PROGRAM_complete)'
`
)
