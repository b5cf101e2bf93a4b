package manual

import (
	"fmt"
	"strings"

	"kiste/cli/option"
)

// PageName is the name of the command's manual page: "kiste-cgroup-run".
func (c *Command) PageName() string {
	return c.Program + "-" + strings.ReplaceAll(c.Name, " ", "-")
}

// Page is the command's manual page.
func (c *Command) Page() string {
	p := NewPage(c.PageName(), c.Section, c.Program+" "+c.Version, c.Short)
	p.Section("SYNOPSIS")
	rest := c.Args
	if len(c.Options) > 0 {
		rest = strings.TrimSpace("[OPTION...] " + rest)
	}
	p.Synopsis(c.Program+" "+c.Name, rest)
	p.Section("DESCRIPTION")
	p.Text(upperFirst(c.Short) + ".\n\n" + c.Long)
	p.Options(c.Options)
	if len(c.Examples) > 0 {
		p.Section("EXAMPLES")
		p.b.WriteString(".nf\n")
		for _, e := range c.Examples {
			p.b.WriteString(line(e) + "\n")
		}
		p.b.WriteString(".fi\n")
	}
	p.Section("SEE ALSO")
	fmt.Fprintf(&p.b, ".BR %s (%d)\n", roff(c.Program), c.Section)
	return p.String()
}

// A Page is a manual page that grows.
type Page struct{ b strings.Builder }

// NewPage begins the page of name. The date is left out on purpose: the same
// source gives the same page.
func NewPage(name string, section int, source, short string) *Page {
	p := &Page{}
	fmt.Fprintf(&p.b, ".TH %s %d \"\" \"%s\" \"Kiste\"\n.SH NAME\n%s \\- %s\n",
		roff(strings.ToUpper(name)), section, roff(source), roff(name), roff(short))
	return p
}

func (p *Page) String() string { return p.b.String() }

// Section begins a section.
func (p *Page) Section(title string) { fmt.Fprintf(&p.b, ".SH %s\n", title) }

// Synopsis is one way to call it: what is typed, and what stands for something.
func (p *Page) Synopsis(typed, rest string) {
	fmt.Fprintf(&p.b, ".B %s\n", roff(typed))
	if rest != "" {
		p.b.WriteString(line(rest) + "\n")
	}
}

// Reference is an item of a list of commands.
func (p *Page) Reference(c *Command) {
	fmt.Fprintf(&p.b, ".TP\n.BR %s (%d)\n%s\n", roff(c.PageName()), c.Section, line(upperFirst(c.Short)+"."))
}

// Options is the section of options; nothing without any.
func (p *Page) Options(options []option.Row) {
	if len(options) > 0 {
		p.Section("OPTIONS")
	}
	for _, o := range options {
		p.Item(o.Names, o.Value, o.Help)
	}
}

// Item is a word, what follows it, and what it means.
func (p *Page) Item(word, value, text string) {
	fmt.Fprintf(&p.b, ".TP\n\\fB%s\\fR", roff(word))
	if value != "" {
		fmt.Fprintf(&p.b, " \\fI%s\\fR", roff(value))
	}
	fmt.Fprintf(&p.b, "\n%s\n", line(upperFirst(text)+"."))
}

// Text is paragraphs; lines that are indented stay as they are.
func (p *Page) Text(text string) {
	verbatim, blank := false, false
	for l := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		indented := strings.HasPrefix(l, " ") || strings.HasPrefix(l, "\t")
		switch {
		case strings.TrimSpace(l) == "":
			blank = true
			continue
		case indented && !verbatim:
			p.b.WriteString(".PP\n.nf\n")
		case !indented && verbatim:
			p.b.WriteString(".fi\n.PP\n")
		case blank && !verbatim:
			p.b.WriteString(".PP\n")
		}
		verbatim, blank = indented, false
		p.b.WriteString(line(strings.ReplaceAll(l, "\t", "    ")) + "\n")
	}
	if verbatim {
		p.b.WriteString(".fi\n")
	}
}

// roff makes s safe inside a line of roff.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`,
		"…", "...", "→", `\(->`, "–", `\(en`, "§", `\(sc`).Replace(s)
}

// line is roff for a whole line, which must not begin with a request.
func line(s string) string {
	s = roff(s)
	if strings.HasPrefix(s, ".") {
		return `\&` + s
	}
	return s
}
