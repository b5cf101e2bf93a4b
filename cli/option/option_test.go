package option

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"kiste/fault"
)

// chosen is what the options of sample put into.
type chosen struct {
	tty, interactive bool
	env              []string
	name             string
	memory, pids     int64
}

func sample(c *chosen) []Row {
	return []Row{
		{"-t, --tty", "", "make a terminal", Bool(&c.tty)},
		{"-i, --interactive", "", "keep standard input open", Bool(&c.interactive)},
		{"-e, --env", "KEY=VALUE", "set a variable", Strings(&c.env)},
		{"--name", "NAME", "its name", String(&c.name)},
		{"-m, --memory", "SIZE", "the most memory", Size(&c.memory)},
		{"--pids", "N", "the most processes", Int(&c.pids)},
	}
}

func TestParseTakesOptionsAsDockerDoes(t *testing.T) {
	for _, tt := range []struct {
		name string
		args string
		rest bool
		want chosen
		left string
	}{
		{"none", "a b", false, chosen{}, "a b"},
		{"switches together", "-it a", true, chosen{tty: true, interactive: true}, "a"},
		{"switches together with a value at the end", "-ite A=1 a", true, chosen{tty: true, interactive: true, env: []string{"A=1"}}, "a"},
		{"long with equal sign", "--name=x a", true, chosen{name: "x"}, "a"},
		{"long with a space", "--name x a", true, chosen{name: "x"}, "a"},
		{"long, empty value", "--name= a", true, chosen{}, "a"},
		{"value with equal signs", "--env=A=B=C", true, chosen{env: []string{"A=B=C"}}, ""},
		{"short, glued", "-m64m a", true, chosen{memory: 64 << 20}, "a"},
		{"short, with equal sign", "-m=1k", true, chosen{memory: 1024}, ""},
		{"value that looks like an option", "--name -x", true, chosen{name: "-x"}, ""},
		{"a switch off", "--tty=false -i=true", true, chosen{interactive: true}, ""},
		{"given again: all are kept", "-e A=1 -e B=2", true, chosen{env: []string{"A=1", "B=2"}}, ""},
		{"given again: the last wins", "--name a --name b", true, chosen{name: "b"}, ""},
		{"the command's own options are left alone", "-t image ls -l --name x", true, chosen{tty: true}, "image ls -l --name x"},
		{"options after arguments", "image -t", false, chosen{tty: true}, "image"},
		{"after two dashes nothing is an option", "-- -t", false, chosen{}, "-t"},
		{"two dashes after the first argument stay", "image -- -t", true, chosen{}, "image -- -t"},
		{"one dash is an argument", "-", true, chosen{}, "-"},
		{"whole numbers in any base", "--pids 0x10", true, chosen{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got chosen
			style := Style(0)
			if tt.rest {
				style = Rest
			}
			left, err := Parse(sample(&got), strings.Fields(tt.args), style)
			if tt.name == "whole numbers in any base" {
				if !errors.Is(err, fault.Invalid) {
					t.Errorf("0x10 was taken as %d; Docker does not", got.pids)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if strings.Join(left, " ") != tt.left {
				t.Errorf("left %q, want %q", left, tt.left)
			}
			if got.tty != tt.want.tty || got.interactive != tt.want.interactive || got.name != tt.want.name ||
				got.memory != tt.want.memory || !slices.Equal(got.env, tt.want.env) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// Go's package flag, and with it runc, takes any name after one dash or two.
func TestParseTakesOptionsWithAnyDash(t *testing.T) {
	for _, tt := range []struct {
		args string
		want chosen
		left string
	}{
		{"-name x a", chosen{name: "x"}, "a"},
		{"--name=x a", chosen{name: "x"}, "a"},
		{"-name=x a -tty", chosen{name: "x", tty: true}, "a"},
		{"a --t=true --i", chosen{tty: true, interactive: true}, "a"},
		{"-it a", chosen{tty: true, interactive: true}, "a"},
		{"-m64m a", chosen{memory: 64 << 20}, "a"},
		{"--m 1k a", chosen{memory: 1 << 10}, "a"},
		{"a -9", chosen{}, "a -9"},
		{"a -- -t", chosen{}, "a -t"},
		{"-", chosen{}, "-"},
	} {
		var got chosen
		left, err := Parse(sample(&got), strings.Fields(tt.args), AnyDash)
		if err != nil || strings.Join(left, " ") != tt.left {
			t.Errorf("%s: left %q, %v; want %q", tt.args, left, err, tt.left)
		}
		if got.tty != tt.want.tty || got.interactive != tt.want.interactive || got.name != tt.want.name || got.memory != tt.want.memory {
			t.Errorf("%s: got %+v, want %+v", tt.args, got, tt.want)
		}
	}
	for _, args := range []string{"-bad", "--bad", "-9 a", "-h", "--h", "-help", "a -help"} {
		var c chosen
		_, err := Parse(sample(&c), strings.Fields(args), AnyDash)
		if help := strings.Contains(args, "h"); help != (err == ErrHelp) || err == nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestParseRefusesWithAReason(t *testing.T) {
	for _, tt := range []struct{ args, text, hint string }{
		{"--memroy 1", `take option "--memroy": there is no such option`, "did you mean --memory?"},
		{"-x", `take option "-x": there is no such option`, ""},
		{"-tx", `take option "-x": there is no such option`, ""},
		{"--name", `take option "--name": it requires an argument: NAME`, ""},
		{"-m lots", `take option "-m": "lots": want a size such as 64M or 1.5g`, ""},
		{"--tty=maybe", `take option "--tty": "maybe": want true or false`, ""},
		{"--pids many", `take option "--pids": "many": want a whole number`, ""},
	} {
		var c chosen
		_, err := Parse(sample(&c), strings.Fields(tt.args), Rest)
		if !errors.Is(err, fault.Invalid) || err.Error() != tt.text {
			t.Errorf("%s: got %v, want %s", tt.args, err, tt.text)
		}
		if hint := fault.HintOf(err); tt.hint != "" && hint != tt.hint {
			t.Errorf("%s: hint %q, want %q", tt.args, hint, tt.hint)
		}
	}
}

func TestHelpIsAnOptionWhereItIsFree(t *testing.T) {
	var c chosen
	host := ""
	withH := append(sample(&c), Row{"-h, --hostname", "NAME", "its name", String(&host)})
	if _, err := Parse(withH, []string{"-h", "box"}, Rest); err != nil || host != "box" {
		t.Errorf("-h box: %q, %v", host, err)
	}
	for _, args := range [][]string{{"--help"}, {"-t", "--help"}} {
		if _, err := Parse(withH, args, Rest); err != ErrHelp {
			t.Errorf("%q: %v", args, err)
		}
	}
	if _, err := Parse(sample(&c), []string{"-h"}, Rest); err != ErrHelp {
		t.Errorf("-h: %v", err)
	}
	if left, err := Parse(withH, []string{"image", "--help"}, Rest); err != nil || len(left) != 2 {
		t.Errorf("the container's own --help: %q, %v", left, err)
	}
}

func TestOpenFindsTheOpenOption(t *testing.T) {
	var c chosen
	for _, tt := range []struct {
		given string
		open  string
		args  int
	}{
		{"--name", "--name", 0},
		{"--name x", "", 0},
		{"--name=x", "", 0},
		{"-it", "", 0},
		{"-ite", "-e, --env", 0},
		{"-e A=1 image", "", 1},
		{"image --name", "", 2},
		{"--bad", "", 0},
	} {
		open, args := Open(sample(&c), strings.Fields(tt.given), true)
		names := ""
		if open != nil {
			names = open.Names
		}
		if names != tt.open || args != tt.args {
			t.Errorf("%q: %q, %d; want %q, %d", tt.given, names, args, tt.open, tt.args)
		}
	}
}

func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int64 // -2: it must be refused
	}{
		{"0", 0}, {"1", 1}, {"64", 64}, {"64b", 64}, {"64k", 64 << 10}, {"64K", 64 << 10}, {"64kb", 64 << 10}, {"64KiB", 64 << 10},
		{"1.5g", 3 << 29}, {"2T", 2 << 40}, {"1p", 1 << 50}, {"-1", -1}, {"64 MB", 64 << 20},
		{"", -2}, {"k", -2}, {"-2", -2}, {"-64m", -2}, {"1x", -2}, {"1mm", -2}, {"NaN", -2}, {"inf", -2}, {"9e30", -2}, {"9000p", -2}, {"1bk", -2},
	} {
		got, err := ParseSize(tt.in)
		if tt.want == -2 {
			if err == nil {
				t.Errorf("ParseSize(%q) = %d; want it refused", tt.in, got)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", tt.in, got, err, tt.want)
		}
	}
}

func TestNearest(t *testing.T) {
	for _, tt := range []struct{ typed, want string }{
		{"rnu", "run"}, {"imges", "images"}, {"vresion", "version"}, {"xyz", ""}, {"", ""}, {strings.Repeat("a", 200), ""},
	} {
		if got := Nearest(tt.typed, []string{"run", "images", "version", "rm"}); got != tt.want {
			t.Errorf("Nearest(%q) = %q, want %q", tt.typed, got, tt.want)
		}
	}
}

// Whatever is typed: no crash, and no argument is invented.
func FuzzParse(f *testing.F) {
	f.Add("-it\x00--name=x\x00-m\x0064m\x00image\x00ls\x00-l", uint8(Rest))
	f.Add("--\x00-t", uint8(0))
	f.Add("-tty\x00--t=1\x00-9", uint8(AnyDash))
	f.Fuzz(func(t *testing.T, words string, style uint8) {
		var c chosen
		args := strings.Split(words, "\x00")
		left, err := Parse(sample(&c), args, Style(style))
		if err != nil && err != ErrHelp && !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", args, err)
		}
		for _, l := range left {
			if !slices.Contains(args, l) {
				t.Errorf("%q: %q was not given", args, l)
			}
		}
	})
}

// A size is never negative but for the one that says "no limit".
func FuzzParseSize(f *testing.F) {
	f.Add("64M")
	f.Add("1.5KiB")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil && n < -1 {
			t.Errorf("ParseSize(%q) = %d", s, n)
		}
	})
}
