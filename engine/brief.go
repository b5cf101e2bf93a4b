package engine

import (
	"reflect"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/store"
)

// Brief is List for who only shows what there is: without the parts of the
// specification that no listing has, which are most of a container's document.
// What it gives cannot be written down.
func (e *Engine) Brief() (all []*Container, bad []error, err error) {
	return e.list(unlisted()...)
}

// unlisted are the parts that no listing has.
var unlisted = sync.OnceValue(func() (parts []store.Part) {
	for _, of := range []struct {
		of    reflect.Type
		names []string
	}{
		{reflect.TypeFor[bundle.Wishes](), []string{"Limits", "Security", "PID", "IPC", "UTS", "UserNS", "CgroupNS", "Devices", "DeviceRule", "Hosts"}},
		{reflect.TypeFor[bundle.Result](), []string{"Origin", "Files"}},
		{reflect.TypeFor[specs.Spec](), []string{"mounts", "annotations", "hooks"}},
		{reflect.TypeFor[specs.Process](), []string{"capabilities", "env", "user", "rlimits"}},
		{reflect.TypeFor[specs.Linux](), []string{"maskedPaths", "readonlyPaths", "devices", "seccomp", "namespaces", "uidMappings", "gidMappings"}},
		{reflect.TypeFor[specs.LinuxResources](), []string{"devices"}},
	} {
		for _, name := range of.names {
			parts = append(parts, store.Part{Of: of.of, Name: name})
		}
	}
	return parts
})
