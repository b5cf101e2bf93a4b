package engine

import (
	"encoding/binary"
	"errors"
	"syscall"
	"testing"
	"time"
)

func listening() *supervisor {
	return &supervisor{ends: map[int]word{}, told: make(chan struct{})}
}

func TestTheGuardsWordIsKeptForWhoAsks(t *testing.T) {
	s := listening()
	const exit7 = 7 << 8
	told := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, 41), exit7)
	if !s.hear(func(b []byte) (int, error) { return copy(b, told), nil }) {
		t.Fatal("a word was not heard")
	}
	if s.hear(func([]byte) (int, error) { return 0, errors.New("closed") }) {
		t.Error("an error was heard")
	}
	if status, ok := s.seen(41); !ok || status.ExitStatus() != 7 {
		t.Errorf("got %v, %v", status, ok)
	}
	if len(s.ends) != 0 {
		t.Errorf("it stays: %v", s.ends)
	}
}

// Of most children that the guard inherits nobody ever asks.
func TestTheGuardsWordIsForgottenWhenNobodyAsks(t *testing.T) {
	s, now := listening(), time.Now()
	for i := range 1000 {
		s.heard(100+i, word{syscall.WaitStatus(0), now})
	}
	late := now.Add(oldWord + time.Second)
	s.heard(1, word{at: late})
	if len(s.ends) != 1001 {
		t.Errorf("before all containers have been looked at there are %d words, want all 1001", len(s.ends))
	}
	s.looked.Store(true)
	s.heard(2, word{at: late})
	if len(s.ends) != 2 {
		t.Errorf("%d words, want the two that are new", len(s.ends))
	}
}
