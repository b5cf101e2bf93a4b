package cve

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const top = "../.." // of the repository

var (
	aTest = regexp.MustCompile("`([a-z/]+) (Test[A-Za-z0-9]+)`")
	aFunc = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	aFlaw = regexp.MustCompile(`\b(?:CVE-)?(20[12][0-9]-[0-9]{4,6})\b`)
)

// testsIn are the names of a directory's tests, and all that their files say.
func testsIn(t *testing.T, dir string) (names []string, text string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(top, dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text += string(b)
	}
	for _, m := range aFunc.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names, text
}

// Every flaw in docs/security.md has a test that is there, and every test here,
// and every flaw that one of them names, is in it.
func TestTheTable(t *testing.T) {
	table, err := os.ReadFile(filepath.Join(top, "docs/security.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows, named := 0, map[string]bool{}
	for line := range strings.Lines(string(table)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || strings.HasPrefix(cells[1], " flaw") || strings.HasPrefix(cells[1], "---") {
			continue
		}
		rows++
		tests := aTest.FindAllStringSubmatch(cells[3], -1)
		if len(tests) == 0 {
			t.Errorf("%s has no test", cells[1])
		}
		for _, m := range tests {
			named[m[1]+" "+m[2]] = true
			if names, _ := testsIn(t, m[1]); !slices.Contains(names, m[2]) {
				t.Errorf("%s: %s has no %s", cells[1], m[1], m[2])
			}
		}
	}
	if rows < 30 {
		t.Errorf("%d rows", rows)
	}
	own, text := testsIn(t, "test/cve")
	for _, name := range own {
		if !named["test/cve "+name] && name != "TestMain" && name != "TestTheTable" {
			t.Errorf("the table has no %s", name)
		}
	}
	for _, m := range aFlaw.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(string(table), "CVE-"+m[1]) {
			t.Errorf("the table has no CVE-%s", m[1])
		}
	}
}
