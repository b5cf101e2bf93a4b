package plan_test

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/plan"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
)

// The bridge and the rules come before the link, all while the child waits.
func TestNetworks(t *testing.T) {
	at := func(s string) network.Prefix {
		p, err := network.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	n := plan.Network{
		Bridges: []network.Bridge{{Name: "kb-1", Addresses: []network.Prefix{at("10.72.0.1/20")}}}, Table: "kiste",
		Rules:     rules.State{Bridges: []rules.Bridge{{Name: "kb-1", Internal: true}}, Ports: []rules.Port{{Proto: rules.TCP, HostPort: 8080, To: at("10.72.0.2/20").Addr(), ToPort: 80}}},
		Endpoints: []network.Endpoint{{Parent: "kb-1", Outer: "kv1", Name: "eth0", MAC: "02:42:0a:48:00:02", Addresses: []network.Prefix{at("10.72.0.2/20")}, Gateways: []network.Addr{at("10.72.0.1/20").Addr()}}},
		Proxied:   []string{"tcp [::1]:8080 -> 10.72.0.2:80"},
	}
	spec := &specs.Spec{Version: specs.Version, Root: &specs.Root{Path: "/root"}, Process: &specs.Process{Args: []string{"/bin/true"}, Cwd: "/"},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}}}}
	p, err := plan.Compile(spec, nil, plan.Options{Network: n}, plan.Facts{Host: true})
	if err != nil {
		t.Fatal(err)
	}
	const want = `make the bridge kb-1 with 10.72.0.1/20, unless it is there
let packets through: kb-1 (internal), tcp *:8080 -> 10.72.0.2:80
join by veth eth0 outer kv1 on kb-1 mac 02:42:0a:48:00:02 10.72.0.2/20 via 10.72.0.1
let the proxy listen: tcp [::1]:8080 -> 10.72.0.2:80
let the child go on
`
	var got strings.Builder
	for _, s := range p.Steps {
		for _, word := range []string{"make the bridge", "let ", "join by"} {
			if s.Side == plan.Parent && strings.HasPrefix(s.Text, word) {
				got.WriteString(s.Text + "\n")
			}
		}
	}
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}
