// Package progress carries news of long work from where it happens to whoever
// shows it.
//
//	takes    a Func in the options of whatever takes long
//	gives    Events
//	touches  nothing
//	state    none
//
// Libraries report; only cli renders.
package progress

import "io"

// A Phase says what is being done to an item.
type Phase string

// The phases, in the order in which an item of a pull passes them.
const (
	Waiting     Phase = "waiting"
	Downloading Phase = "downloading"
	Unpacking   Phase = "unpacking"
	Present     Phase = "already there"
	Done        Phase = "done"
	Failed      Phase = "failed"
)

// An Event is news of one item of work. Events of one ID come in order.
type Event struct {
	ID     string `json:"id"` // "sha256:4f53…", "step 3/7"
	Phase  Phase  `json:"phase"`
	Done   int64  `json:"done,omitempty"`  // bytes, or items
	Total  int64  `json:"total,omitempty"` // 0: not known
	Detail string `json:"detail,omitempty"`
}

// A Func receives events. It must not block for long and may be called from
// several goroutines. A nil Func is silence.
type Func func(Event)

// Report calls f unless it is nil.
func (f Func) Report(e Event) {
	if f != nil {
		f(e)
	}
}

// Reader reports e to f as r is read, with Done advanced by what was read.
func Reader(r io.Reader, f Func, e Event) io.Reader { return &reader{r, f, e} }

type reader struct {
	r io.Reader
	f Func
	e Event
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.e.Done += int64(n)
	r.f.Report(r.e)
	return n, err
}
