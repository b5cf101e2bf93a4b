package engine

import (
	"slices"
	"testing"

	"kiste/engine/inspect"
)

// What a plugin publishes leads where the plugin has led it, whatever networks
// of ours come and go; ours is parked where nothing leads out.
func TestPluginsPortsStayWhenANetworkGoes(t *testing.T) {
	theirs := inspect.Binding{Port: "80/tcp", IP: "0.0.0.0", Host: 8080}
	c := &Container{}
	c.Bindings = []inspect.Binding{theirs}
	if err := (&Engine{}).lead(c, nil, nil); err != nil || !slices.Equal(c.Bindings, []inspect.Binding{theirs}) || len(c.Parked) != 0 {
		t.Errorf("%v; %+v, parked %+v", err, c.Bindings, c.Parked)
	}
}
