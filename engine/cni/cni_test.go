package cni

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kiste/fault"
)

const bridge = `{"cniVersion":"1.0.0","name":"mine","plugins":[
	{"type":"bridge","bridge":"b0","ipam":{"type":"host-local"}},
	{"type":"portmap","capabilities":{"portMappings":true,"other":false}}]}`

func TestParse(t *testing.T) {
	l, err := Parse([]byte(bridge))
	if err != nil || l.Name != "mine" || len(l.Plugins) != 2 || l.Plugins[0].Type != "bridge" {
		t.Fatalf("%+v, %v", l, err)
	}
	if c := l.Plugins[1].Capabilities; len(c) != 1 || c[0] != "portMappings" {
		t.Error(c)
	}
	if l, err = Parse([]byte(`{"name":"single","type":"ptp","cniVersion":"0.4.0"}`)); err != nil || len(l.Plugins) != 1 || l.Plugins[0].Type != "ptp" {
		t.Errorf("%+v, %v", l, err)
	}
	for _, bad := range []string{``, `[]`, `{"name":"a/b","type":"x"}`, `{"name":"a","type":"../x"}`, `{"name":"a","plugins":[]}`, `{"name":"a"}`,
		`{"name":"a","cniVersion":"9.0.0","type":"x"}`, `{"name":"","type":"x"}`, `{"name":"a","plugins":[{}]}`} {
		if l, err := Parse([]byte(bad)); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %+v, %v", bad, l, err)
		}
	}
}

// plugins makes a directory of plugins that are shell scripts, and is where they
// leave what they were told.
func plugins(t *testing.T, scripts map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, script := range scripts {
		text := "#!/bin/sh\nd=" + dir + "\ncat >>$d/" + name + ".$CNI_COMMAND\necho $CNI_COMMAND " + name + " $CNI_IFNAME $CNI_NETNS >>$d/calls\n" + script
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CNI_PATH", dir)
	return dir
}

const gives = `[ $CNI_COMMAND != ADD ] || echo '{"cniVersion":"1.0.0","interfaces":[{"name":"b0"},{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/x"}],"ips":[{"address":"10.9.0.2/24","gateway":"10.9.0.1"}]}'`

func called(t *testing.T, dir, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func TestAddAndDel(t *testing.T) {
	dir := plugins(t, map[string]string{"bridge": gives, "portmap": gives})
	l, err := Parse([]byte(bridge))
	if err != nil {
		t.Fatal(err)
	}
	a, r, err := Add(l, Options{Container: "id", Netns: "/proc/1/ns/net", Link: "eth0", Capabilities: map[string]any{"portMappings": []PortMapping{{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"}}, "other": 1}})
	if err != nil || len(r.IPs) != 1 || r.IPs[0].Address.String() != "10.9.0.2/24" || !r.Links[1].Inside {
		t.Fatalf("%+v, %v", r, err)
	}
	told := called(t, dir, "portmap.ADD")
	for _, want := range []string{`"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}]}`, `"prevResult":{`, `"name":"mine"`} {
		if !strings.Contains(told, want) {
			t.Errorf("portmap is told %s, without %s", told, want)
		}
	}
	if strings.Contains(called(t, dir, "bridge.ADD"), "runtimeConfig") {
		t.Error("bridge is told what it has no capability for")
	}
	if err := errors.Join(a.Check(), a.Del()); err != nil {
		t.Error(err)
	}
	if calls := called(t, dir, "calls"); !strings.HasSuffix(calls, "DEL portmap eth0 /proc/1/ns/net\nDEL bridge eth0 /proc/1/ns/net\n") {
		t.Error(calls)
	}
	if !strings.Contains(called(t, dir, "bridge.DEL"), `"prevResult"`) {
		t.Error("DEL does not hear of the result")
	}
}

func TestErrorsOfPluginsAreWords(t *testing.T) {
	dir := plugins(t, map[string]string{"bridge": gives, "portmap": `[ $CNI_COMMAND = DEL ] || { echo '{"code":11,"msg":"no room","details":"at all"}'; exit 1; }`})
	l, _ := Parse([]byte(bridge))
	if _, _, err := Add(l, Options{Container: "id", Link: "eth0"}); err == nil || !strings.Contains(err.Error(), `by plugin "portmap": no room: at all`) {
		t.Error(err)
	}
	if !strings.Contains(called(t, dir, "calls"), "DEL bridge") {
		t.Error("what the first plugin did is not undone")
	}
	os.Remove(filepath.Join(dir, "bridge"))
	if _, _, err := Add(l, Options{Container: "id", Link: "eth0"}); fault.HintOf(err) == "" {
		t.Errorf("a plugin that is not there: %v", err)
	}
	plugins(t, map[string]string{"bridge": "echo nonsense", "portmap": "true"})
	if _, _, err := Add(l, Options{Container: "id", Link: "eth0"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("a result that is none: %v", err)
	}
	plugins(t, map[string]string{"bridge": "head -c 3000000 /dev/zero; exit 1", "portmap": "true"})
	if _, _, err := Add(l, Options{Container: "id", Link: "eth0"}); err == nil || len(err.Error()) > 2000 {
		t.Error("a plugin that says too much")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(bridge))
	f.Add([]byte(`{"name":"single","type":"ptp"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := Parse(text)
		if err != nil {
			return
		}
		a := &Attachment{List: l, Result: []byte(`{}`)}
		for _, p := range l.Plugins {
			if conf, err := a.config("ADD", p); err != nil || len(conf) == 0 {
				t.Errorf("%q has no configuration for %s: %v", text, p.Type, err)
			}
		}
	})
}

func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"/proc/1/ns/net"}],"ips":[{"version":"4","interface":0,"address":"10.1.0.2/16","gateway":"10.1.0.1"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.1.0.1"]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseResult(text)
		if err != nil {
			return
		}
		for _, ip := range r.IPs {
			if !ip.Address.IsValid() {
				t.Errorf("%q gives an address that is none", text)
			}
		}
	})
}
