package cli

import (
	"context"
	"os"
	"path/filepath"
	"strconv"

	"kiste/cli/manual"
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
			d := described(c)
			pages[d.PageName()+".1"] = d.Page()
		}
	}
	return pages
}

// manIndex is kiste(1).
func manIndex() string {
	p := manual.NewPage("kiste", 1, "kiste "+Version, "build, ship, run and explain Linux containers")
	p.Section("SYNOPSIS")
	p.Synopsis("kiste COMMAND", "[OPTION...] [ARGUMENT...]")
	p.Section("DESCRIPTION")
	p.Text("Kiste needs no daemon: state is files below /var/lib/kiste and /run/kiste, or below the XDG directories of an ordinary user.")
	p.Section("COMMANDS")
	for _, r := range table() {
		if r.new == nil {
			continue
		}
		if c := r.new(); !c.Hidden {
			p.Reference(described(c))
		}
	}
	p.Section("EXIT STATUS")
	for _, row := range exitCodes() {
		p.Item(strconv.Itoa(row.code), "", row.text)
	}
	p.Section("ENVIRONMENT")
	p.Item("KISTE_LIB", "", "where images and containers are kept")
	p.Item("KISTE_RUN", "", "where the state of what runs is kept")
	p.Item("KISTE_KISTED", "", "the path of kisted, which does what needs a network")
	return p.String()
}
