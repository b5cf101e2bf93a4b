package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kiste/fault"
	"kiste/store"
)

func completionCommand() *Command {
	return &Command{
		Name:  "completion",
		Args:  "bash|zsh|fish",
		Short: "print the completion script for a shell",
		Long: `The script asks "kiste __complete" at every press of the key, so it never grows old.

For this shell alone: source <(kiste completion bash). For good:
  kiste completion bash > /etc/bash_completion.d/kiste
  kiste completion zsh > /usr/local/share/zsh/site-functions/_kiste
  kiste completion fish > /etc/fish/completions/kiste.fish`,
		Min: 1,
		Max: 1,
		Examples: []string{
			"source <(kiste completion bash)",
			"kiste completion fish | source",
		},
		Run: func(_ context.Context, env *Env, args []string) error {
			return printCompletion(env.Out, args[0])
		},
	}
}

func printCompletion(w io.Writer, shell string) error {
	script := ""
	switch shell {
	case "bash":
		script = bashCompletion
	case "zsh":
		script = zshCompletion
	case "fish":
		script = fishCompletion
	default:
		return &fault.Error{Op: "complete for shell", On: shell, Kind: fault.Invalid, Hint: "bash, zsh and fish are known"}
	}
	_, err := io.WriteString(w, script)
	return err
}

// The scripts hand the words up to the cursor to "kiste __complete" and show
// what it prints: a word and, after a tab, what it is. The line ":files" or
// ":dirs" asks the shell for names of files.
const (
	bashCompletion = `# bash completion for kiste
_kiste() {
	local cur="${COMP_WORDS[COMP_CWORD]}" line
	COMPREPLY=()
	# bash takes words apart at colons and equal signs; kiste wants them whole
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
complete -F _kiste kiste
`
	zshCompletion = `#compdef kiste
_kiste() {
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
	(( ${#found} )) && _describe kiste found
}
if [[ "${funcstack[1]}" == _kiste ]]; then
	_kiste "$@"
else
	compdef _kiste kiste
fi
`
	fishCompletion = `# fish completion for kiste
function __kiste_complete
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
complete -c kiste -f -a '(__kiste_complete)'
`
)

func completeCommand() *Command {
	return &Command{
		Name:   "__complete",
		Args:   "WORD...",
		Short:  "print what the last word may become",
		Hidden: true,
		Raw:    true,
		Run: func(_ context.Context, env *Env, args []string) error {
			for _, c := range complete(store.Locate(), args) {
				fmt.Fprintln(env.Out, c)
			}
			return nil
		},
	}
}

// complete lists what the last of words, which may be empty, can become: a
// word, and after a tab what it is. ":files" and ":dirs" stand for names of
// files, which the shell knows best.
func complete(s store.Store, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	before, last := words[:len(words)-1], words[len(words)-1]
	return slices.DeleteFunc(candidates(s, before, last), func(c string) bool {
		return !strings.HasPrefix(c, last) && c[0] != ':'
	})
}

func candidates(s store.Store, before []string, last string) []string {
	if len(before) == 0 {
		return commandNames("")
	}
	command, given, err := find(before)
	switch {
	case err != nil:
		return nil
	case command == nil:
		return commandNames(before[0] + " ")
	}
	open, args := walk(command, given)
	switch {
	case open != nil:
		return valueNames(s, open)
	case strings.HasPrefix(last, "-") && !(command.Rest && args > 0):
		return optionNames(command)
	}
	return argumentNames(s, command, args)
}

// commandNames lists the words that may follow prefix, which is empty or a
// group and a space.
func commandNames(prefix string) []string {
	var names []string
	add := func(name string, c *Command) {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok || c == nil || c.Hidden || rest[0] == '-' {
			return
		}
		word, _, more := strings.Cut(rest, " ")
		line := word + "\t" + c.Short
		if more {
			line = word + "\t" + verbList(word)
		}
		if !slices.Contains(names, line) {
			names = append(names, line)
		}
	}
	rows := commands()
	for _, r := range rows {
		add(r.name, r.new())
	}
	for _, a := range aliases() {
		add(a.name, named(rows, a.means))
	}
	return names
}

// walk goes over the words given after a command's name. It returns the option
// whose value comes next, if one does, and the number of arguments so far.
func walk(c *Command, given []string) (open *Option, args int) {
	for i := 0; i < len(given); i++ {
		word := given[i]
		switch {
		case word == "--":
			return nil, args + len(given) - i - 1
		case len(word) < 2 || word[0] != '-':
			args++
			if c.Rest {
				return nil, args + len(given) - i - 1
			}
			continue
		}
		o := takesNext(c.Options, word)
		switch {
		case o == nil:
		case i == len(given)-1:
			return o, args
		default:
			i++
		}
	}
	return nil, args
}

// takesNext is the option in word that takes the word after it as its value.
func takesNext(options []Option, word string) *Option {
	if strings.HasPrefix(word, "--") {
		if o := lookup(options, word); o != nil && o.Value != "" {
			return o
		}
		return nil
	}
	for i := 1; i < len(word); i++ {
		o := lookup(options, "-"+word[i:i+1])
		if o == nil || o.Value != "" && i < len(word)-1 {
			return nil
		}
		if o.Value != "" {
			return o
		}
	}
	return nil
}

func optionNames(c *Command) []string {
	var names []string
	for _, o := range c.Options {
		for _, n := range o.names() {
			names = append(names, n+"\t"+o.Help)
		}
	}
	return append(names, "--help\tshow how it is used")
}

// valueNames guesses from the name of an option's value what it may be.
func valueNames(s store.Store, o *Option) []string {
	switch value := strings.ToUpper(o.Value); {
	case strings.Contains(value, "|") && value != o.Value:
		return strings.Split(o.Value, "|")
	case strings.Contains(value, "DIR"):
		return []string{":dirs"}
	case strings.Contains(value, "FILE"), strings.Contains(value, "PATH"):
		return []string{":files"}
	case strings.Contains(value, "CONTAINER"):
		return containerNames(s)
	case strings.Contains(value, "IMAGE"):
		return imageNames(s)
	}
	return nil
}

func argumentNames(s store.Store, c *Command, args int) []string {
	switch {
	case c.Max >= 0 && args >= c.Max:
		return nil
	case c.Rest && args > 0:
		return []string{":files"}
	}
	switch c.Complete {
	case "image":
		return imageNames(s)
	case "container":
		return containerNames(s)
	case "file":
		return []string{":files"}
	case "dir":
		return []string{":dirs"}
	case "command":
		if args == 0 {
			return commandNames("")
		}
		return nil
	}
	if strings.Contains(c.Args, "|") && c.Args == strings.ToLower(c.Args) {
		return strings.Split(c.Args, "|")
	}
	return nil
}

func containerNames(s store.Store) []string { return names(filepath.Join(s.Lib, "names")) }

func imageNames(s store.Store) []string { return names(s.Images()) }

// names are the entries of a directory of the store.
func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			found = append(found, strings.TrimSuffix(e.Name(), ".json"))
		}
	}
	return found
}
