package cli

import (
	"bytes"
	"testing"

	"kiste/engine"
	"kiste/image/catalog"
)

func TestTotals(t *testing.T) {
	u := &engine.Usage{Layers: 3000, Idle: 1000,
		Images:     []engine.ImageUsage{{Entry: catalog.Entry{}, Containers: 1}, {}},
		Containers: []engine.ContainerUsage{{Container: aContainer("a", "running"), Written: 10}, {Container: aContainer("b", "exited"), Written: 30}, {Container: aContainer("c", "paused")}},
		Volumes:    []engine.VolumeUsage{{VolumeInfo: &engine.VolumeInfo{Name: "v", Links: 1}, Size: 1234567}},
	}
	const want = `TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE
Images          2         1         3kB       1kB (33%)
Containers      3         2         40B       30B (75%)
Local Volumes   1         1         1.235MB   0B (0%)
Build Cache     0         0         0B        0B
`
	var out bytes.Buffer
	if err := showTotals(&Env{Out: &out}, u, ""); err != nil || out.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out.String(), want)
	}
}
