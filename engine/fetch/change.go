package fetch

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/container/bundle"
	"kiste/fault"
	"kiste/image/catalog"
)

// maxChange bounds one instruction, in bytes.
const maxChange = 1 << 20

// changeAll applies Dockerfile instructions as "docker import --change" and
// "docker commit --change" take them. An ENTRYPOINT takes the CMD away that was
// there before, unless one of the changes has set it.
func changeAll(c *catalog.Config, lines []string) error {
	ch := changer{c: c}
	for _, line := range lines {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		err := ch.apply(strings.ToUpper(word), strings.TrimSpace(rest))
		if len(line) > maxChange {
			err = fmt.Errorf("it has more than %d bytes", maxChange)
		}
		if err != nil {
			return &fault.Error{Op: "take change", On: line[:min(len(line), 200)], Kind: fault.Invalid, Err: err,
				Hint: "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR are possible"}
		}
	}
	return nil
}

// A changer changes an image's config.
type changer struct {
	c      *catalog.Config
	cmdSet bool
}

func (ch *changer) apply(word, rest string) error {
	c := ch.c
	set, ok := map[string]func(string) error{
		"CMD":         ch.cmd,
		"ENTRYPOINT":  ch.entrypoint,
		"ENV":         ch.env,
		"EXPOSE":      ch.expose,
		"HEALTHCHECK": ch.healthcheck,
		"LABEL":       ch.label,
		"ONBUILD":     ch.onBuild,
		"SHELL":       ch.shell,
		"STOPSIGNAL":  ch.stopSignal,
		"USER":        func(s string) error { c.User = s; return nil },
		"VOLUME":      ch.volume,
		"WORKDIR":     func(s string) error { c.WorkingDir = inDir(c.WorkingDir, s); return nil },
	}[word]
	switch {
	case !ok:
		return errors.New(strings.ToLower(word[:min(len(word), 100)]) + " is not a valid change command")
	case rest == "":
		return errors.New("nothing follows the instruction")
	}
	return set(rest)
}

func (ch *changer) cmd(s string) error {
	ch.c.Cmd, ch.cmdSet = ch.command(s), true
	return nil
}

func (ch *changer) entrypoint(s string) error {
	ch.c.Entrypoint = ch.command(s)
	if !ch.cmdSet {
		ch.c.Cmd = nil
	}
	return nil
}

// command reads the exec form, else the shell form.
func (ch *changer) command(s string) []string {
	if words := list(s); words != nil {
		return words
	}
	shell := ch.c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), s)
}

// list reads a list of words in JSON; nil: it is none.
func list(s string) []string {
	var words []string
	if json.Unmarshal([]byte(s), &words) != nil {
		return nil
	}
	return words
}

func (ch *changer) shell(s string) error {
	words := list(s)
	if len(words) == 0 {
		return errors.New("a shell is a JSON list of words")
	}
	ch.c.Shell = words
	return nil
}

func (ch *changer) env(s string) error {
	pairs := pairs(s)
	if pairs == nil {
		return errors.New("want KEY=VALUE")
	}
	for _, p := range pairs {
		ch.c.Env = slices.DeleteFunc(ch.c.Env, func(e string) bool { return strings.HasPrefix(e, p[0]+"=") })
		ch.c.Env = append(ch.c.Env, p[0]+"="+p[1])
	}
	return nil
}

func (ch *changer) label(s string) error {
	pairs := pairs(s)
	if pairs == nil {
		return errors.New("want KEY=VALUE")
	}
	if ch.c.Labels == nil {
		ch.c.Labels = map[string]string{}
	}
	for _, p := range pairs {
		ch.c.Labels[p[0]] = p[1]
	}
	return nil
}

func (ch *changer) expose(s string) error {
	for _, port := range strings.Fields(s) {
		number, proto, found := strings.Cut(port, "/")
		if !found {
			proto = "tcp"
		}
		first, last, isRange := strings.Cut(number, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		proto = strings.ToLower(proto)
		if err1 != nil || err2 != nil || from > to || !slices.Contains([]string{"tcp", "udp", "sctp"}, proto) {
			return fmt.Errorf("invalid containerPort: %.100s", port)
		}
		for n := from; n <= to; n++ {
			add(&ch.c.ExposedPorts, fmt.Sprintf("%d/%s", n, proto))
		}
	}
	return nil
}

func (ch *changer) volume(s string) error {
	places := strings.Fields(s)
	if s[0] == '[' {
		if places = list(s); places == nil {
			return errors.New("the list of volumes is no JSON")
		}
	}
	for _, place := range places {
		if place = strings.TrimSpace(place); place == "" {
			return errors.New("VOLUME specified can not be an empty string")
		}
		add(&ch.c.Volumes, place)
	}
	return nil
}

func (ch *changer) stopSignal(s string) error {
	if _, err := bundle.ParseSignal(s); err != nil {
		return fmt.Errorf("Invalid signal: %.100s", s)
	}
	ch.c.StopSignal = s
	return nil
}

func (ch *changer) onBuild(s string) error {
	word, _, _ := strings.Cut(s, " ")
	switch word = strings.ToUpper(word); word {
	case "ONBUILD":
		return errors.New("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "MAINTAINER", "FROM":
		return errors.New(word + " isn't allowed as an ONBUILD trigger")
	}
	ch.c.OnBuild = append(ch.c.OnBuild, s)
	return nil
}

// healthcheck reads "NONE", or options and "CMD" with the command.
func (ch *changer) healthcheck(s string) error {
	h := &catalog.Healthcheck{}
	for strings.HasPrefix(s, "--") {
		word, rest, _ := strings.Cut(s, " ")
		if err := healthOption(h, word); err != nil {
			return err
		}
		s = strings.TrimSpace(rest)
	}
	word, rest, _ := strings.Cut(s, " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToUpper(word) {
	case "NONE":
		if rest != "" {
			return errors.New("HEALTHCHECK NONE takes no arguments")
		}
		h.Test = []string{"NONE"}
	case "CMD":
		if rest == "" {
			return errors.New("Missing command after HEALTHCHECK CMD")
		}
		h.Test = []string{"CMD-SHELL", rest}
		if words := list(rest); words != nil {
			h.Test = append([]string{"CMD"}, words...)
		}
	default:
		return fmt.Errorf("Unknown type %q in HEALTHCHECK (try CMD)", word[:min(len(word), 100)])
	}
	ch.c.Healthcheck = h
	return nil
}

func healthOption(h *catalog.Healthcheck, word string) error {
	name, value, _ := strings.Cut(word, "=")
	if name == "--retries" {
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 0 {
			return errors.New("--retries must be at least 0")
		}
		h.Retries = int(n)
		return nil
	}
	to, ok := map[string]*time.Duration{"--interval": &h.Interval, "--timeout": &h.Timeout, "--start-period": &h.StartPeriod, "--start-interval": &h.StartInterval}[name]
	if !ok {
		return fmt.Errorf("Unknown flag: %.100s", strings.TrimPrefix(name, "--"))
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return err
	}
	if d < 0 || d > 0 && d < time.Millisecond {
		return fmt.Errorf("Interval %q cannot be less than 1ms", strings.TrimPrefix(name, "--"))
	}
	*to = d
	return nil
}

// inDir is a directory seen from another.
func inDir(from, dir string) string {
	if path.IsAbs(dir) {
		return path.Clean(dir)
	}
	return path.Join("/", from, dir)
}

// pairs reads KEY=VALUE…, with quotes, or the old KEY VALUE. Nil: it is
// neither.
func pairs(s string) [][2]string {
	words := splitQuoted(s)
	if len(words) == 0 {
		return nil
	}
	if !strings.Contains(words[0], "=") {
		key, value, ok := strings.Cut(s, " ")
		if !ok {
			return nil
		}
		return [][2]string{{key, strings.TrimSpace(value)}}
	}
	var list [][2]string
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return nil
		}
		list = append(list, [2]string{key, value})
	}
	return list
}

func splitQuoted(s string) []string {
	var words []string
	var word strings.Builder
	quote, in := rune(0), false
	for _, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, in = r, true
		case quote == 0 && r == ' ':
			if in {
				words = append(words, word.String())
			}
			word.Reset()
			in = false
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words
}

func add(set *map[string]struct{}, key string) {
	if *set == nil {
		*set = map[string]struct{}{}
	}
	(*set)[key] = struct{}{}
}
