package engine

import (
	"maps"

	"kiste/engine/event"
)

// maxLabels is how many bytes of labels an event is given. Of more, which no
// sane image has, it gets none.
const maxLabels = 64 << 10

// Emit tells that action has happened to c. Attributes are those of the action,
// as Docker has them: exitCode, signal, execID. To be written down is tried
// once; nothing fails for it.
//
// The actions are create, start, die, kill, stop, restart, pause, unpause,
// rename, update, destroy, exec_create: COMMAND, exec_start: COMMAND, exec_die,
// health_status: STATUS, oom, attach, detach, resize, archive-path and
// extract-to-dir (both of cp), export, commit, top.
func (e *Engine) Emit(action string, c *Container, attributes map[string]string) {
	all := map[string]string{}
	if size := 0; c.Result != nil {
		for k, v := range c.Result.Labels {
			size += len(k) + len(v)
		}
		if size <= maxLabels {
			maps.Copy(all, c.Result.Labels)
		}
	}
	all["image"], all["name"] = c.ImageName, c.Name
	maps.Copy(all, attributes)
	_ = event.Append(e.Store, event.New(event.Container, action, c.ID, all))
}

// EmitVolume tells that action has happened to a volume: create, mount,
// unmount, destroy.
func (e *Engine) EmitVolume(action, name string, attributes map[string]string) {
	all := map[string]string{"driver": "local"}
	maps.Copy(all, attributes)
	_ = event.Append(e.Store, event.New(event.Volume, action, name, all))
}

// EmitNetwork tells that action has happened to a network: create, connect,
// disconnect, destroy.
func (e *Engine) EmitNetwork(action string, n *Network, attributes map[string]string) {
	all := map[string]string{"name": n.Name, "type": n.Driver}
	maps.Copy(all, attributes)
	_ = event.Append(e.Store, event.New(event.Network, action, n.ID, all))
}
