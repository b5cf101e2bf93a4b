package oci

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"kiste/fault"
)

func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		yes, no string // words
	}{
		{"", "a web", ""},
		{"web", "web my-web web-1", "we bew"},
		{"^web$", "web", "web1 aweb"},
		{"web|db", "web db mydb", "wd"},
		{"^(web|db)-[0-9]+$", "web-1 db-99", "web- db-x xweb-1"},
		{"^a.c$", "abc a+c", "ac abbc"},
		{"^ab*c?$", "a ab abbb abc ac", "abcc b"},
		{"^[^a-c]x", "dx -x", "ax bx x"},
		{"^[]a]$", "]", "b"},
		{"^x{2,3}$", "xx xxx", "x xxxx"},
		{"^x{2}$", "xx", "x xxx"},
		{"^x{2,}$", "xx xxxxx", "x"},
		{"^(a|b(c|d)*)+$", "a b bc bcd abcdda", "c acx ."},
		{`^a\.b$`, "a.b", "axb"},
		{"^a|b$", "ax xb", "xay"},
	} {
		p, err := compilePattern(tt.pattern)
		if err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
			continue
		}
		for _, word := range strings.Fields(tt.yes) {
			if !p.matches(word) {
				t.Errorf("%q does not match %q", tt.pattern, word)
			}
		}
		for _, word := range strings.Fields(tt.no) {
			if p.matches(word) {
				t.Errorf("%q matches %q", tt.pattern, word)
			}
		}
	}
	for _, bad := range []string{"(", ")", "a)", "[a", "*", "a|*", `\`, "a{", "a{x}", "a{3,2}", "a{999}", "[z-a]", "((a{200}){200}){200}", strings.Repeat("(", 200), "[[:alpha:]]"} {
		if _, err := compilePattern(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v; want it refused", bad, err)
		}
	}
}

// What both understand matches the same with Go's own.
func FuzzPattern(f *testing.F) {
	f.Add("^(web|db)-[0-9]+$", "web-1")
	f.Add("a{2,3}[^x-z].?", "aab")
	f.Fuzz(func(t *testing.T, text, word string) {
		if len(text) > 50 || len(word) > 50 || strings.ContainsFunc(text+word, func(r rune) bool { return r < ' ' || r > '~' }) {
			return
		}
		ours, err := compilePattern(text)
		theirs, theirErr := regexp.CompilePOSIX(text)
		if err != nil || theirErr != nil {
			return
		}
		if strings.ContainsAny(text, `\{`) {
			return // Go takes \d for a class, and x{} for letters
		}
		if got, want := ours.matches(word), theirs.MatchString(word); got != want {
			t.Errorf("%q on %q: %t; want %t", text, word, got, want)
		}
	})
}
