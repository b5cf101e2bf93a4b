package store_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"kiste/store"
)

type inner struct {
	A int    `json:"a"`
	B string `json:"b,omitempty"`
}

type document struct {
	inner
	Schema int               `json:"schema"`
	Map    map[string]string `json:"map,omitempty"`
	Sets   map[string]struct{}
	List   []inner
	None   []string
	Bytes  []byte
	Ptr    *int64 `json:"ptr,omitempty"`
	Nil    *inner
	When   time.Time
	Took   time.Duration
	Any    any
	Skip   string `json:"-"`
	hidden int
}

func sample(s string) document {
	n := int64(-7)
	return document{inner: inner{1, s}, Schema: 1, Map: map[string]string{"b": s, "a<&>": "\u2028"}, Sets: map[string]struct{}{"/x": {}},
		List: []inner{{2, ""}, {3, "c"}}, Bytes: []byte{0, 255}, Ptr: &n, When: time.Unix(1, 5).UTC(), Took: 9, Any: "z", Skip: "no", hidden: 4}
}

// What Encode writes, encoding/json reads as the same value as its own.
func TestEncodeReadsBack(t *testing.T) { check(t, "quote \" slash \\ line\n\x00\x7f é 漢 \xff") }

func check(t *testing.T, s string) {
	t.Helper()
	in := sample(s)
	ours, err := store.Encode(&in)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := json.Marshal(&in)
	if err != nil {
		t.Fatal(err)
	}
	var a, b document
	if err := json.Unmarshal(ours, &a); err != nil {
		t.Fatalf("%v in %s", err, ours)
	}
	if err := json.Unmarshal(theirs, &b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("Encode gives\n%s\nencoding/json\n%s", ours, theirs)
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("x\x01\"")
	f.Fuzz(func(t *testing.T, s string) { check(t, s) })
}
