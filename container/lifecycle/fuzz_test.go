package lifecycle

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/plan"
	"kiste/store"
)

// Whatever state.json holds, it is read or refused, and what is read is written
// so that the same is read again.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"schema":1,"ociVersion":"1.3.0","id":"x","bundle":"/b","rootfs":"/b/rootfs","created":"2026-11-24T18:26:29.862895319Z","owner":0,"pid":0,"birth":7,"cgroup":"/kiste-x","hierarchies":{"Unified":{"Mount":"/nonexistent","Root":"/","Controllers":[],"V2":true}},"program":"sh"}`))
	f.Add([]byte(`{"schema":2,"id":"x"}`))
	f.Add([]byte(`{"schema":1,"id":"x","pid":-1}`))
	f.Add([]byte(`{"schema":1,"id":"x","hooks":{"poststop":[{"path":"/bin/true","timeout":1}]},"annotations":{"a":"b"}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := Root{Dir: t.TempDir()}
		if err := os.Mkdir(r.dir("x"), 0o700); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(r.dir("x"), stateFile)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := r.Load("x")
		if err != nil {
			return
		}
		c.doc.PID = 0 // whose number it is would be asked of this host
		c.State()
		first, err := store.Encode(&c.doc)
		if err != nil {
			return // a time beyond what JSON has
		}
		if err := c.write(); err != nil {
			t.Fatal(err)
		}
		again, err := r.Load("x")
		if err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if second, err := store.Encode(&again.doc); err != nil || string(second) != string(first) {
			t.Errorf("%s\nis read again as\n%s (%v)", first, second, err)
		}
	})
}

// Whatever a bundle's config.json holds, it is refused, or there is a plan for it,
// with sources of binds that are absolute; and the copy of it that a container
// keeps is read the same.
func FuzzConfig(f *testing.F) {
	text, err := os.ReadFile("testdata/config.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, s := range []string{`{}`, `null`, `[]`, `{"root":{"path":"rootfs"},"process":{"args":["a"]},"linux":{}}`,
		`{"root":{"path":"rootfs"},"process":{"args":["a"],"cwd":"/"},"mounts":[{"destination":"/x","type":"bind","source":"../..","options":["rbind"]},{"type":"bind"}],"linux":{"namespaces":[{"type":"mount"},{"type":"x","path":"\u0000"}]}}`,
		`{"root":{"path":"."},"process":{"args":[""],"terminal":true},"hooks":{"poststop":[{"path":"a","timeout":-1}],"createRuntime":[{}]},"linux":{"seccomp":{"listenerPath":"s"},"cgroupsPath":"../.."}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		bundle := t.TempDir()
		file := filepath.Join(bundle, configFile)
		err := os.WriteFile(file, text, 0o600)
		if err == nil {
			err = os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
		m := &making{root: Root{Dir: filepath.Join(bundle, "state")}, o: CreateOptions{Bundle: bundle}}
		if m.read("x") != nil {
			return
		}
		for _, mount := range m.spec.Mounts {
			if mount.Type == "bind" && !filepath.IsAbs(mount.Source) {
				t.Errorf("the source %q is not absolute", mount.Source)
			}
		}
		if made, err := plan.Compile(m.spec, nil, plan.Options{Bundle: bundle, Wait: true}, plan.Facts{Host: true, LastCap: 40}); err == nil {
			_ = made.String() + made.Calls()
		}
		kept := &Container{root: m.root, dir: bundle}
		if s, err := kept.spec(); err != nil || len(s.Process.Args) != len(m.spec.Process.Args) {
			t.Errorf("the copy is not read: %v", err)
		}
		if b, err := store.Encode(&m.c.doc); err != nil || store.Decode(b, &document{}) != nil {
			t.Errorf("its state is not written, or not read: %v", err)
		}
	})
}

// Whatever a checkpoint says of the streams, at most three are taken.
func FuzzDescriptors(f *testing.F) {
	for _, s := range []string{`["/dev/null","pipe:[1]","file[2:3]"]`, `[]`, `null`, `["a","b","c","d"]`, `[1]`, `{`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if names, err := readDescriptors(bytes.NewReader(text)); err == nil && len(names) > 3 {
			t.Errorf("%q", names)
		}
	})
}

// Whatever the link to the process says, it is read or refused, and what is read
// is written so that the same is read again.
func FuzzBorn(f *testing.F) {
	for _, text := range []string{"12 345", "12", "-1 2", "x y", "0 0", "1 18446744073709551615", "99999999999999999999 1", "1 2 3"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, again := &Container{dir: t.TempDir()}, &Container{}
		if os.Symlink(text, c.file(bornLink)) != nil || c.readBorn() != nil {
			return
		}
		again.dir = c.dir
		if err := os.Remove(c.file(bornLink)); err != nil {
			t.Fatal(err)
		}
		if err := c.writeBorn(); err != nil {
			t.Fatal(err)
		}
		if err := again.readBorn(); err != nil || again.doc.PID != c.doc.PID || again.doc.Birth != c.doc.Birth {
			t.Errorf("%q is %d %d, and then %d %d, %v", text, c.doc.PID, c.doc.Birth, again.doc.PID, again.doc.Birth, err)
		}
	})
}

// Whatever process.json holds, it is refused, or there is a plan for it.
func FuzzProcess(f *testing.F) {
	f.Add([]byte(`{"args":["sh","-c","id"],"cwd":"/bin","user":{"uid":3,"gid":3,"umask":18,"additionalGids":[7]},"env":["PATH=/bin","X=y"],"terminal":true,"consoleSize":{"height":1,"width":2}}`))
	f.Add([]byte(`{"args":["x"],"cwd":"/","rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":2}],"oomScoreAdj":5,"capabilities":{"bounding":["CAP_KILL","CAP_X"],"ambient":["CAP_KILL"]},"noNewPrivileges":true}`))
	f.Add([]byte(`{"args":["x"],"cwd":"/","scheduler":{"policy":"SCHED_OTHER","nice":3,"flags":["SCHED_FLAG_RESET_ON_FORK"]},"ioPriority":{"class":"IOPRIO_CLASS_IDLE"},"execCPUAffinity":{"initial":"0-1","final":"9999999"}}`))
	f.Add([]byte(`{"args":[""],"cwd":"../.."}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "process.json")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := ReadProcess(file)
		if err != nil || checkTerminal(p, false, "") != nil {
			return
		}
		for _, t1 := range []plan.Target{{}, {Namespaces: []string{"user", "mnt", "pid"}, UIDs: []plan.IDMap{{Outside: 1, Size: 1}}}, {Namespaces: []string{"pid"}, Linux: &specs.Linux{}}} {
			made, err := plan.CompileExec(p, t1, plan.Options{}, plan.Facts{Host: true, LastCap: 40})
			if err == nil {
				_ = made.String() + made.Calls()
			}
		}
	})
}

// What ParseUser takes is decimal numbers as they stand.
func FuzzParseUser(f *testing.F) {
	for _, s := range []string{"1", "1:1", ":1", "+1", "01", "name", "1:-1", "4294967295"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		uid, gid, err := ParseUser(s, 5)
		if err != nil {
			return
		}
		for _, r := range s {
			if r != ':' && (r < '0' || r > '9') {
				t.Errorf("%q is taken for %d:%d", s, uid, gid)
			}
		}
	})
}
