package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"kiste/internal/sys"
	"kiste/progress"
)

// A Style is how progress is shown.
type Style int

// The styles. Auto is moving lines on a terminal, and plain ones elsewhere.
const (
	Auto Style = iota
	JSON
	Silent
)

// Progress gives a renderer for long work. Done ends it: what is shown last
// stays.
func Progress(env *Env, style Style) (f progress.Func, done func()) {
	switch {
	case style == Silent:
		return nil, func() {}
	case style == JSON:
		return jsonLines(env), func() {}
	case env.Stderr != nil && sys.IsTerminal(env.Stderr):
		b := &bars{env: env, at: map[string]int{}}
		return b.event, b.finish
	}
	return plainLines(env), func() {}
}

// every bounds how often moving things are shown.
const every = 100 * time.Millisecond

// jsonLines shows every change of phase, and every tenth of a second how far an
// item is.
func jsonLines(env *Env) progress.Func {
	var mu sync.Mutex
	last := map[string]progress.Event{}
	shown := map[string]time.Time{}
	return func(e progress.Event) {
		mu.Lock()
		defer mu.Unlock()
		if last[e.ID].Phase == e.Phase && time.Since(shown[e.ID]) < every {
			return
		}
		last[e.ID], shown[e.ID] = e, time.Now()
		if b, err := json.Marshal(e); err == nil {
			fmt.Fprintf(env.Out, "%s\n", b)
		}
	}
}

// plainLines shows every change of phase.
func plainLines(env *Env) progress.Func {
	var mu sync.Mutex
	last := map[string]progress.Phase{}
	return func(e progress.Event) {
		mu.Lock()
		defer mu.Unlock()
		if last[e.ID] == e.Phase {
			return
		}
		last[e.ID] = e.Phase
		if text := phaseText(e.Phase); text != "" {
			fmt.Fprintf(env.Err, "%s: %s\n", shortItem(e.ID), text)
		}
	}
}

// phaseText is Docker's word for a phase; of what lines alone need not say,
// "".
func phaseText(p progress.Phase) string {
	switch p {
	case progress.Waiting:
		return "Pulling fs layer"
	case progress.Present:
		return "Already exists"
	case progress.Unpacking:
		return "Extracting"
	case progress.Done:
		return "Pull complete"
	case progress.Failed:
		return "Failed"
	}
	return ""
}

func shortItem(id string) string {
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		return id
	}
	return hex[:min(12, len(hex))]
}

// bars are moving lines on a terminal, one an item.
type bars struct {
	env   *Env
	mu    sync.Mutex
	items []progress.Event
	at    map[string]int // index into items
	drawn int            // lines on the screen
	when  time.Time
}

func (b *bars) event(e progress.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i, known := b.at[e.ID]
	if !known {
		i = len(b.items)
		b.at[e.ID] = i
		b.items = append(b.items, e)
	}
	same := known && b.items[i].Phase == e.Phase
	b.items[i] = e
	if !same || time.Since(b.when) >= every {
		b.draw()
	}
}

func (b *bars) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.draw()
}

// draw shows as many of the last items as the terminal has lines.
func (b *bars) draw() {
	rows, columns, err := sys.WindowSize(b.env.Stderr)
	if err != nil || rows < 2 || columns < 20 {
		rows, columns = 24, 80
	}
	show := b.items[max(0, len(b.items)-int(rows)+1):]
	var out strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", b.drawn)
	}
	for _, e := range show {
		fmt.Fprintf(&out, "\r\x1b[2K%s\n", barLine(e, int(columns)))
	}
	b.drawn, b.when = len(show), time.Now()
	fmt.Fprint(b.env.Err, out.String())
}

// barLine is an item in at most width letters.
func barLine(e progress.Event, width int) string {
	line := shortItem(e.ID) + ": "
	if text := phaseText(e.Phase); text != "" && e.Phase != progress.Unpacking {
		return line + text
	}
	word := "Downloading"
	if e.Phase == progress.Unpacking {
		word = "Extracting "
	}
	amount := DecimalSize(e.Done)
	room := width - len(line) - len(word) - 24
	if e.Total <= 0 || room < 10 {
		return line + word + " " + amount
	}
	amount += "/" + DecimalSize(e.Total)
	room = min(room, 50)
	full := int(min(e.Done, e.Total) * int64(room) / e.Total)
	return line + word + " [" + strings.Repeat("=", full) + ">" + strings.Repeat(" ", room-full) + "] " + amount
}
