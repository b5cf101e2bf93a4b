package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"kiste/fault"
)

func manCommand() *Command {
	return &Command{
		Name:     "man",
		Args:     "DIR",
		Short:    "write the manual pages into a directory",
		Long:     "DIR gets kiste.1 and a page for every command (kiste-version.1 …). What was there under these names is replaced.",
		Min:      1,
		Max:      1,
		Complete: "dir",
		Examples: []string{"kiste man /usr/local/share/man/man1"},
		Run: func(_ context.Context, _ *Env, args []string) error {
			return writeManPages(args[0])
		},
	}
}

func writeManPages(dir string) error {
	for name, text := range manPages() {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return &fault.Error{Op: "write manual pages", Err: err}
		}
	}
	return nil
}

// manPages are the pages by file name.
func manPages() map[string]string {
	pages := map[string]string{"kiste.1": manIndex()}
	for _, r := range commands() {
		if c := r.new(); !c.Hidden {
			pages[manName(c.Name)+".1"] = manPage(c)
		}
	}
	return pages
}

func manName(command string) string { return "kiste-" + strings.ReplaceAll(command, " ", "-") }

// manIndex is kiste(1).
func manIndex() string {
	var b strings.Builder
	manHead(&b, "kiste", "build, ship, run and explain Linux containers")
	b.WriteString(".SH SYNOPSIS\n.B kiste\n.I COMMAND\n[\\fIOPTION\\fR...] [\\fIARGUMENT\\fR...]\n")
	b.WriteString(".SH DESCRIPTION\n")
	manText(&b, "Kiste needs no daemon: state is files below /var/lib/kiste and /run/kiste, or below the XDG directories of an ordinary user.")
	b.WriteString(".SH COMMANDS\n")
	for _, r := range table() {
		if r.new == nil {
			continue
		}
		if c := r.new(); !c.Hidden {
			fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", roff(manName(c.Name)), roffLine(upperFirst(c.Short)+"."))
		}
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, row := range exitCodes() {
		fmt.Fprintf(&b, ".TP\n.B %d\n%s\n", row.code, roffLine(upperFirst(row.text)+"."))
	}
	b.WriteString(".SH ENVIRONMENT\n.TP\n.B KISTE_LIB\nWhere images and containers are kept.\n.TP\n.B KISTE_RUN\nWhere the state of what runs is kept.\n.TP\n.B KISTE_KISTED\nThe path of kisted, which does what needs a network.\n")
	return b.String()
}

// manPage is the page of one command.
func manPage(c *Command) string {
	var b strings.Builder
	manHead(&b, manName(c.Name), c.Short)
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff("kiste "+c.Name))
	if len(c.Options) > 0 {
		b.WriteString("[\\fIOPTION\\fR...]\n")
	}
	if c.Args != "" {
		fmt.Fprintf(&b, "%s\n", roffLine(c.Args))
	}
	b.WriteString(".SH DESCRIPTION\n")
	manText(&b, upperFirst(c.Short)+".\n\n"+c.Long)
	if len(c.Options) > 0 {
		b.WriteString(".SH OPTIONS\n")
	}
	for _, o := range c.Options {
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fR", roff(o.Names))
		if o.Value != "" {
			fmt.Fprintf(&b, " \\fI%s\\fR", roff(o.Value))
		}
		fmt.Fprintf(&b, "\n%s\n", roffLine(upperFirst(o.Help)+"."))
	}
	if len(c.Examples) > 0 {
		b.WriteString(".SH EXAMPLES\n.nf\n")
		for _, e := range c.Examples {
			b.WriteString(roffLine(e) + "\n")
		}
		b.WriteString(".fi\n")
	}
	b.WriteString(".SH SEE ALSO\n.BR kiste (1)\n")
	return b.String()
}

func manHead(b *strings.Builder, name, short string) {
	// The date is left out on purpose: the same source gives the same page.
	fmt.Fprintf(b, ".TH %s 1 \"\" \"kiste %s\" \"Kiste\"\n.SH NAME\n%s \\- %s\n", roff(strings.ToUpper(name)), roff(Version), roff(name), roff(short))
}

// manText writes paragraphs; lines that are indented stay as they are.
func manText(b *strings.Builder, text string) {
	verbatim, blank := false, false
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		indented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		switch {
		case strings.TrimSpace(line) == "":
			blank = true
			continue
		case indented && !verbatim:
			b.WriteString(".PP\n.nf\n")
		case !indented && verbatim:
			b.WriteString(".fi\n.PP\n")
		case blank && !verbatim:
			b.WriteString(".PP\n")
		}
		verbatim, blank = indented, false
		b.WriteString(roffLine(strings.ReplaceAll(line, "\t", "    ")) + "\n")
	}
	if verbatim {
		b.WriteString(".fi\n")
	}
}

// roff makes s safe inside a line of roff.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`,
		"…", "...", "→", `\(->`, "–", `\(en`, "§", `\(sc`).Replace(s)
}

// roffLine is roff for a whole line, which must not begin with a request.
func roffLine(s string) string {
	s = roff(s)
	if strings.HasPrefix(s, ".") {
		return `\&` + s
	}
	return s
}
