package quadlet

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kiste/fault"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var others = map[string]string{"data.volume": "systemd-data", "back.network": "mine", "web.container": "systemd-web"}

// Each file of testdata becomes the unit beside it.
func TestCompileGolden(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.in")
	for _, in := range files {
		name := strings.TrimSuffix(filepath.Base(in), ".in")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			f, err := Parse("/etc/containers/systemd/"+name, string(text))
			if err != nil {
				t.Fatal(err)
			}
			u, err := Compile(f, others, Options{Program: "/usr/bin/kiste"})
			if err != nil {
				t.Fatal(err)
			}
			got := u.Text + "\n# links: " + strings.Join(u.Links, " ") + "\n# warnings: " + strings.Join(u.Warnings, "; ") + "\n"
			out := strings.TrimSuffix(in, ".in") + ".service"
			if *update {
				if err := os.WriteFile(out, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s is not what it was (go test -update rewrites it):\n%s", out, got)
			}
		})
	}
}

// What nobody knows, and what Kiste has not, is told with file and line.
func TestRefuse(t *testing.T) {
	for _, tt := range []struct {
		name, file, text, want string
		kind                   fault.Kind
	}{
		{"an unknown key", "web.container", "[Container]\nImage=x\nImgae=y\n", `"/q/web.container:3": unknown key Imgae in [Container]`, fault.Invalid},
		{"an unknown section", "web.container", "[Container]\nImage=x\n[Contianer]\nImage=y\n", `"/q/web.container:4": unknown section [Contianer]`, fault.Invalid},
		{"another kind's section", "web.container", "[Volume]\nType=tmpfs\n", `"/q/web.container:2": unknown section [Volume]`, fault.Invalid},
		{"no image", "web.container", "[Container]\nExec=sh\n", "either Image= or Rootfs=", fault.Invalid},
		{"both", "web.container", "[Container]\nImage=x\nRootfs=/y\n", "either Image= or Rootfs=", fault.Invalid},
		{"what is not there", "web.container", "[Container]\nImage=x\nSecret=key\n", `:3": Secret= is not supported: there are no secrets`, fault.Unsupported},
		{"no boolean", "web.container", "[Container]\nImage=x\nReadOnly=maybe\n", `:3": ReadOnly=maybe: want yes or no`, fault.Invalid},
		{"a volume of nobody's", "web.container", "[Container]\nImage=x\nVolume=other.volume:/x\n", "there is no file other.volume", fault.Invalid},
		{"a file of an image", "web.container", "[Container]\nImage=x.image\n", "not supported", fault.Invalid},
		{"an open quote", "web.container", "[Container]\nImage=x\nExec=sh -c 'a\n", "a quote is not closed", fault.Invalid},
		{"no section", "web.container", "Image=x\n", `:1": "Image" stands before the first section`, fault.Invalid},
		{"no assignment", "web.container", "[Container]\nImage\n", `:2": "Image" is no assignment`, fault.Invalid},
		{"a broken section", "web.container", "[Container\n", `:1": "[Container" is no section`, fault.Invalid},
		{"a pod", "web.pod", "[Pod]\n", "pods are not supported", fault.Unsupported},
		{"Kubernetes", "web.kube", "[Kube]\nYaml=x\n", "Kubernetes' documents are not supported", fault.Unsupported},
		{"no boolean of quadlet's own", "web.container", "[Container]\nImage=x\n[Quadlet]\nDefaultDependencies=perhaps\n", `:4": DefaultDependencies=perhaps: want yes or no`, fault.Invalid},
		{"a group alone", "web.container", "[Container]\nImage=x\nGroup=7\n", "Group= wants User=", fault.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("/q/"+tt.file, tt.text)
			if err == nil {
				_, err = Compile(f, others, Options{Program: "kiste"})
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || fault.KindOf(err) != tt.kind {
				t.Errorf("got %v (%v), want %q (%v)", err, fault.KindOf(err), tt.want, tt.kind)
			}
		})
	}
}

// Who wants no dependencies says so in any of systemd's words.
func TestNoDefaultDependencies(t *testing.T) {
	for value, want := range map[string]bool{"no": false, "false": false, "off": false, "yes": true} {
		f, err := Parse("/q/web.container", "[Container]\nImage=x\n[Quadlet]\nDefaultDependencies="+value+"\n")
		if err != nil {
			t.Fatal(err)
		}
		u, err := Compile(f, others, Options{Program: "kiste"})
		if err != nil {
			t.Fatal(err)
		}
		if has := strings.Contains(u.Text, "network-online.target"); has != want {
			t.Errorf("%s: the unit waits for the network: %v", value, has)
		}
	}
}

func TestFindAndWrite(t *testing.T) {
	first, second, out := t.TempDir(), t.TempDir(), t.TempDir()
	for p, text := range map[string]string{
		first + "/web.container":               "[Container]\nImage=first\nVolume=data.volume:/data\n[Install]\nWantedBy=default.target\n",
		first + "/web.container.d/10-env.conf": "[Container]\nEnvironment=A=1\n",
		second + "/web.container":              "[Container]\nImage=second\n",
		second + "/below/data.volume":          "[Volume]\n",
		second + "/bad.container":              "[Container]\nImage=x\nBad=1\n",
		second + "/worse.container":            "nonsense\n",
		second + "/notes.txt":                  "nonsense\n",
	} {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := Find([]string{first, second, "/nowhere"})
	if err == nil || !strings.Contains(err.Error(), "worse.container:1") {
		t.Errorf("Find gives %v, want an error that names worse.container:1", err)
	}
	units, err := CompileAll(files, Options{Program: "/usr/bin/kiste"})
	if err == nil || !strings.Contains(err.Error(), "bad.container:3") {
		t.Errorf("CompileAll gives %v, want an error that names bad.container:3", err)
	}
	for _, u := range units {
		if err := u.Write(out); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(out + "/default.target.wants/web.service")
	if err != nil || !strings.Contains(string(text), "--env=A=1") || !strings.Contains(string(text), " first\n") || !strings.Contains(string(text), "Requires=data-volume.service") {
		t.Errorf("web.service is %q, %v", text, err)
	}
	if _, err := os.Stat(out + "/data-volume.service"); err != nil {
		t.Error(err)
	}
}

func TestDirs(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(k string) string {
			for _, p := range pairs {
				if v, ok := strings.CutPrefix(p, k+"="); ok {
					return v
				}
			}
			return ""
		}
	}
	if got := Dirs(true, "7", env("HOME=/home/ann", "XDG_RUNTIME_DIR=/run/user/7")); !slices.Equal(got[:3], []string{"/run/user/7/containers/systemd", "/home/ann/.config/containers/systemd", "/etc/containers/systemd/users/7"}) {
		t.Errorf("a user's are %v", got)
	}
	if got := Dirs(false, "0", env("QUADLET_UNIT_DIRS=/a:/b")); !slices.Equal(got, []string{"/a", "/b"}) {
		t.Errorf("by the environment they are %v", got)
	}
}

// What Quote writes, Words reads again.
func FuzzWords(f *testing.F) {
	f.Add(`a "b c" 'd' \x41 e\ f \101 \u00e4`)
	f.Fuzz(func(t *testing.T, s string) {
		words, err := Words(Entry{Value: s})
		if err != nil {
			if !errors.Is(err, fault.Invalid) {
				t.Errorf("%q: %v, want fault.Invalid", s, err)
			}
			return
		}
		if again, err := Words(Entry{Value: Quote(words)}); err != nil || !slices.Equal(again, words) {
			t.Errorf("%q: %q, and of what is written of it %q, %v", s, words, again, err)
		}
	})
}

// No file makes a unit with lines that nobody wrote.
func FuzzCompile(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.in")
	for _, in := range files {
		text, _ := os.ReadFile(in)
		f.Add(strings.TrimSuffix(filepath.Base(in), ".in"), string(text))
	}
	f.Fuzz(func(t *testing.T, name, text string) {
		file, err := Parse("/q/"+strings.ReplaceAll(name, "/", ""), text)
		if err != nil {
			return
		}
		u, err := Compile(file, others, Options{Program: "/usr/bin/kiste"})
		if err != nil {
			return
		}
		for _, l := range u.Links {
			if strings.Contains(l, "..") && !strings.HasPrefix(filepath.Join("/units", l), "/units/") {
				t.Errorf("a link leads to %q", l)
			}
		}
		again, err := Parse("/q/unit", u.Text)
		if err != nil {
			t.Fatalf("the unit cannot be read: %v\n%s", err, u.Text)
		}
		if n := len(again.values("Service", "ExecStart")); n == 0 {
			t.Errorf("the unit starts nothing:\n%s", u.Text)
		}
	})
}
