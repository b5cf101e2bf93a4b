package bundle_test

import (
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
)

// A container of an image that says how to start itself, with a little less
// memory than it would like.
func ExampleCompile() {
	image := bundle.ImageConfig{Entrypoint: []string{"nginx"}, Cmd: []string{"-g", "daemon off;"}, User: "www"}
	wishes := bundle.Wishes{Limits: bundle.Limits{Memory: 64 << 20}}
	ids := []specs.LinuxIDMapping{{HostID: 1 << 20, Size: 65536}}
	result, err := bundle.Compile(image, wishes, bundle.Facts{ID: strings.Repeat("c0ffee", 6), Root: true, UserNS: true, UIDs: ids, GIDs: ids})
	if err != nil {
		fmt.Println("cannot", err)
		return
	}
	fmt.Printf("%q from %s\n", result.Spec.Process.Args, result.Origin["process.args"])
	fmt.Println("look it up in", result.SearchPath)
	fmt.Println("memory", *result.Spec.Linux.Resources.Memory.Limit, "from", result.Origin["linux.resources.memory.limit"])
	user, err := bundle.ResolveUser(result.User, []byte("www:x:33:33::/srv:/bin/false\n"), nil, result.Groups)
	fmt.Println(user, err)
	// Output:
	// ["nginx" "-g" "daemon off;"] from image: Entrypoint, image: Cmd
	// look it up in /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	// memory 67108864 from --memory
	// {33 33 [33] /srv} <nil>
}
