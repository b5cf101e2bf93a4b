package engine

import (
	"reflect"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/store"
)

// Brief is List for who only shows what there is: without the parts of the
// specification that no listing has, which are most of a container's document.
// What it gives cannot be written down.
func (e *Engine) Brief() (all []*Container, bad []error, err error) {
	return e.list(
		store.Part{Of: reflect.TypeFor[bundle.Result](), Name: "Origin"}, store.Part{Of: reflect.TypeFor[bundle.Result](), Name: "Files"},
		store.Part{Of: reflect.TypeFor[specs.Spec](), Name: "mounts"}, store.Part{Of: reflect.TypeFor[specs.Process](), Name: "capabilities"},
		store.Part{Of: reflect.TypeFor[specs.Process](), Name: "env"}, store.Part{Of: reflect.TypeFor[specs.Linux](), Name: "maskedPaths"},
		store.Part{Of: reflect.TypeFor[specs.Linux](), Name: "readonlyPaths"}, store.Part{Of: reflect.TypeFor[specs.Linux](), Name: "devices"},
		store.Part{Of: reflect.TypeFor[specs.Linux](), Name: "seccomp"}, store.Part{Of: reflect.TypeFor[specs.LinuxResources](), Name: "devices"},
	)
}
