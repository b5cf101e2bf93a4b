package fetch

import (
	"encoding/json"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/image/catalog"
)

func TestChangeAll(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []string
		want  string // the config's JSON, or what the error says
	}{
		{"CMD in JSON", []string{`CMD ["a", "b c"]`}, `{"Cmd":["a","b c"]}`},
		{"CMD for the shell", []string{`cmd a  b`}, `{"Cmd":["/bin/sh","-c","a  b"]}`},
		{"CMD for another shell", []string{`SHELL ["bash","-ec"]`, `CMD a`}, `{"Cmd":["bash","-ec","a"],"Shell":["bash","-ec"]}`},
		{"an ENTRYPOINT takes the old CMD away", []string{`ENTRYPOINT ["e"]`}, `{"Entrypoint":["e"]}`},
		{"but not a new one", []string{`CMD ["c"]`, `ENTRYPOINT ["e"]`}, `{"Entrypoint":["e"],"Cmd":["c"]}`},
		{"ENV replaces", []string{`ENV A=1 B="x y"`, `ENV A 2 3`}, `{"Env":["B=x y","A=2 3"]}`},
		{"LABEL", []string{`LABEL a=1 "b c"='d e'`}, `{"Labels":{"a":"1","b c":"d e"}}`},
		{"EXPOSE", []string{`EXPOSE 80 53/udp 8000-8001`}, `{"ExposedPorts":{"53/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{}}}`},
		{"EXPOSE of nonsense", []string{`EXPOSE http`}, "invalid containerPort: http"},
		{"VOLUME", []string{`VOLUME /a /b`, `VOLUME ["/c d"]`}, `{"Volumes":{"/a":{},"/b":{},"/c d":{}}}`},
		{"WORKDIR", []string{`WORKDIR /a`, `WORKDIR ../b`}, `{"WorkingDir":"/b"}`},
		{"USER, STOPSIGNAL, ONBUILD", []string{`USER 1:2`, `STOPSIGNAL SIGUSR1`, `ONBUILD RUN make`}, `{"User":"1:2","StopSignal":"SIGUSR1","OnBuild":["RUN make"]}`},
		{"no signal", []string{`STOPSIGNAL foo`}, "Invalid signal: foo"},
		{"ONBUILD of itself", []string{`ONBUILD ONBUILD RUN x`}, "isn't allowed"},
		{"HEALTHCHECK", []string{`HEALTHCHECK --interval=5s --retries=2 CMD curl x`}, `{"Healthcheck":{"Test":["CMD-SHELL","curl x"],"Interval":5000000000,"Retries":2}}`},
		{"HEALTHCHECK in JSON", []string{`HEALTHCHECK CMD ["a","b"]`}, `{"Healthcheck":{"Test":["CMD","a","b"]}}`},
		{"no HEALTHCHECK", []string{`HEALTHCHECK NONE`}, `{"Healthcheck":{"Test":["NONE"]}}`},
		{"HEALTHCHECK of nonsense", []string{`HEALTHCHECK foo`}, `Unknown type "foo" in HEALTHCHECK (try CMD)`},
		{"what is no change", []string{`bogus x`}, "bogus is not a valid change command"},
		{"RUN", []string{`RUN make`}, "run is not a valid change command"},
		{"nothing", []string{``}, "is not a valid change command"},
		{"a word alone", []string{`CMD`}, "nothing follows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := catalog.Config{}
			if tt.name == "an ENTRYPOINT takes the old CMD away" {
				c.Cmd = []string{"old"}
			}
			err := changeAll(&c, tt.lines)
			if err != nil {
				if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v; want %s", err, tt.want)
				}
				return
			}
			if got, _ := json.Marshal(c); string(got) != tt.want {
				t.Errorf("got %s; want %s", got, tt.want)
			}
		})
	}
}

// Whatever an instruction says, it is taken or refused, and the config stays
// small.
func FuzzChange(f *testing.F) {
	for _, s := range []string{`CMD ["a"]`, `ENV A=1 B="x`, `LABEL a b`, `EXPOSE 1-65535/tcp`, `HEALTHCHECK --interval=1ms --retries=3 CMD x`, `VOLUME ["/a"]`, `WORKDIR ..`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := catalog.Config{}
		err := changeAll(&c, []string{s})
		if err != nil && fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", s, err)
		}
		if b, _ := json.Marshal(c); len(b) > 8*len(s)+2<<20 {
			t.Errorf("%q made a config of %d bytes", s, len(b))
		}
	})
}
