// Package cni brings containers onto networks that plugins of the Container
// Network Interface make, as files in /etc/cni/net.d say.
//
//	takes    a name, a network namespace by its path, ports and rates
//	gives    the addresses that the plugins gave
//	touches  runs the plugins, which do as they like with the host's network
//	state    none of its own: the caller keeps an Attachment, which Del needs
//
// A configuration is a list of plugins. ADD calls one after the other, each with
// what the one before gave; DEL calls them in the reverse order with what ADD gave
// in the end, so that they find it again also when the container and its
// namespace are gone. By hand it is
//
//	CNI_COMMAND=ADD CNI_CONTAINERID=id CNI_NETNS=/proc/PID/ns/net \
//	CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni /usr/lib/cni/bridge < conf
//
// What a plugin prints is not trusted to be short, nor to be JSON. Versions 0.3.0
// to 1.1.0 of the specification are spoken: github.com/containernetworking/cni,
// SPEC.md. Root is needed, for the plugins. Safe for concurrent use.
package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kiste/fault"
	"kiste/internal/sys"
)

// Directories are where configurations are, and PluginPath where plugins are, the
// first ones first.
func Directories() []string { return []string{"/etc/cni/net.d"} }

// PluginPath is CNI_PATH where it is set, else where packages have them.
func PluginPath() []string {
	if path := os.Getenv("CNI_PATH"); path != "" {
		return filepath.SplitList(path)
	}
	return []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}
}

// Bounds of what others write, in bytes, and of what they do.
const (
	maxConfig  = 1 << 20
	maxPlugins = 64
	maxFiles   = 1000
	maxOutput  = 1 << 20
	maxList    = 256 // of addresses, routes and links in a result
	patience   = 2 * time.Minute
)

// versions are those that are spoken.
var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// A List is one configuration.
type List struct {
	Name    string
	Version string
	NoCheck bool
	Plugins []Plugin
}

// A Plugin is one of a list.
type Plugin struct {
	Type         string
	Capabilities []string                   // what of Options it wants to hear, in order
	Config       map[string]json.RawMessage // as it stands in the file
}

// Parse reads a list, or the configuration of a single plugin.
func Parse(text []byte) (*List, error) {
	var top struct {
		Name         string            `json:"name"`
		Version      string            `json:"cniVersion"`
		DisableCheck json.RawMessage   `json:"disableCheck"`
		Plugins      []json.RawMessage `json:"plugins"`
		Type         string            `json:"type"`
	}
	if len(text) > maxConfig {
		return nil, invalid("it is too long")
	}
	if err := json.Unmarshal(text, &top); err != nil {
		return nil, invalid("%w", err)
	}
	l := &List{Name: top.Name, Version: top.Version, NoCheck: isTrue(top.DisableCheck)}
	if l.Version == "" {
		l.Version = "0.3.0"
	}
	if top.Plugins == nil && top.Type != "" {
		top.Plugins = []json.RawMessage{text}
	}
	switch {
	case !validName(l.Name):
		return nil, invalid("%q is no name of a network", l.Name[:min(len(l.Name), 100)])
	case !slices.Contains(versions, l.Version):
		return nil, invalid("version %q is not spoken: there are %s", l.Version[:min(len(l.Version), 20)], strings.Join(versions, ", "))
	case len(top.Plugins) == 0 || len(top.Plugins) > maxPlugins:
		return nil, invalid("it has %d plugins", len(top.Plugins))
	}
	for _, raw := range top.Plugins {
		p, err := parsePlugin(raw)
		if err != nil {
			return nil, err
		}
		l.Plugins = append(l.Plugins, p)
	}
	return l, nil
}

func isTrue(raw json.RawMessage) bool {
	s := strings.Trim(string(raw), `"`)
	return s == "true"
}

func parsePlugin(raw json.RawMessage) (p Plugin, err error) {
	if err := json.Unmarshal(raw, &p.Config); err != nil {
		return p, invalid("%w", err)
	}
	var known struct {
		Type         string          `json:"type"`
		Capabilities map[string]bool `json:"capabilities"`
	}
	if err := json.Unmarshal(raw, &known); err != nil {
		return p, invalid("%w", err)
	}
	if p.Type = known.Type; !validName(p.Type) {
		return p, invalid("%q is no name of a plugin", p.Type[:min(len(p.Type), 100)])
	}
	for _, name := range slices.Sorted(maps.Keys(known.Capabilities)) {
		if known.Capabilities[name] {
			p.Capabilities = append(p.Capabilities, name)
		}
	}
	return p, nil
}

func invalid(format string, args ...any) error {
	return &fault.Error{Op: "read CNI configuration", Kind: fault.Invalid, Err: fmt.Errorf(format, args...)}
}

// validName is of what may stand in a path and in a variable.
func validName(s string) bool {
	return s != "" && len(s) < 200 && s[0] != '.' && s[0] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

// Lists reads all configurations, in the order of their files' names, and what
// is wrong with those that cannot be read. Of two with one name the first counts.
func Lists() (all []*List, bad []error) {
	for _, dir := range Directories() {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			bad = append(bad, err)
		}
		for _, d := range entries[:min(len(entries), maxFiles)] {
			if ext := filepath.Ext(d.Name()); ext != ".conflist" && ext != ".conf" && ext != ".json" {
				continue
			}
			l, err := read(filepath.Join(dir, d.Name()))
			switch {
			case err != nil:
				bad = append(bad, err)
			case !slices.ContainsFunc(all, func(o *List) bool { return o.Name == l.Name }):
				all = append(all, l)
			}
		}
	}
	return all, bad
}

func read(path string) (*List, error) {
	text, err := sys.ReadFile(path, maxConfig+1)
	if err != nil {
		return nil, err
	}
	l, err := Parse(text)
	if err != nil {
		return nil, &fault.Error{Op: "use", On: path, Err: err}
	}
	return l, nil
}

// Find finds a configuration by its name. None is fault.NotFound.
func Find(name string) (*List, error) {
	all, bad := Lists()
	for _, l := range all {
		if l.Name == name {
			return l, nil
		}
	}
	return nil, &fault.Error{Op: "find CNI network", On: name, Kind: fault.NotFound, Err: errors.Join(bad...)}
}

// Options say what a container has on a network.
type Options struct {
	Container string // its id
	Netns     string // a path; empty for Del: it is gone
	Link      string // the name of the link inside
	Args      map[string]string
	// Capabilities are told to plugins that have them: "portMappings",
	// "bandwidth", "ips", "mac".
	Capabilities map[string]any `json:",omitempty"`
}

// A PortMapping is one of the capability portMappings.
type PortMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// An Attachment is a container on a network, as Del and Check need it.
type Attachment struct {
	List    *List
	Options Options
	Result  json.RawMessage // of ADD
}

// Add brings a container onto the network. When a plugin fails, those before it
// are told to undo what they did.
func Add(l *List, o Options) (*Attachment, Result, error) {
	a := &Attachment{List: l, Options: o}
	for _, p := range l.Plugins {
		out, err := a.call("ADD", p)
		var r Result
		if err == nil {
			r, err = ParseResult(out)
		}
		if err != nil {
			return nil, r, errors.Join(err, a.Del())
		}
		a.Result = out
	}
	r, err := ParseResult(a.Result)
	return a, r, err
}

// Del takes the container from the network. It may be called again, and when
// the namespace is gone. The first error counts, all plugins are called.
func (a *Attachment) Del() error {
	var first error
	for _, p := range slices.Backward(a.List.Plugins) {
		if _, err := a.call("DEL", p); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Check asks the plugins whether all is as they made it: since 0.4.0 they can
// tell.
func (a *Attachment) Check() error {
	if a.List.NoCheck || a.List.Version < "0.4.0" {
		return nil
	}
	for _, p := range a.List.Plugins {
		if _, err := a.call("CHECK", p); err != nil {
			return err
		}
	}
	return nil
}

// config is what a plugin reads.
func (a *Attachment) config(command string, p Plugin) ([]byte, error) {
	c := maps.Clone(p.Config)
	values := map[string]any{"name": a.List.Name, "cniVersion": a.List.Version}
	delete(c, "plugins")
	delete(c, "capabilities")
	told := map[string]any{}
	for _, name := range p.Capabilities {
		if v, ok := a.Options.Capabilities[name]; ok {
			told[name] = v
		}
	}
	if len(told) > 0 {
		values["runtimeConfig"] = told
	}
	if a.Result != nil && (command == "ADD" || a.List.Version >= "0.4.0") {
		values["prevResult"] = a.Result
	}
	for key, v := range values {
		raw, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		c[key] = raw
	}
	return json.Marshal(c)
}

// call runs one plugin.
func (a *Attachment) call(command string, p Plugin) ([]byte, error) {
	fail := func(err error) error {
		e := &fault.Error{Op: strings.ToLower(command) + " CNI network " + a.List.Name + " by plugin", On: p.Type, Err: err}
		if fault.KindOf(err) == fault.NotFound {
			e.Hint = "install it (containernetworking-plugins), or name its directory by CNI_PATH; looked for in " + strings.Join(PluginPath(), ", ")
		}
		return e
	}
	path, err := lookUp(p.Type)
	if err != nil {
		return nil, fail(err)
	}
	conf, err := a.config(command, p)
	if err != nil {
		return nil, fail(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	cmd.Dir, cmd.Env = "/", a.environment(command)
	cmd.WaitDelay = time.Second
	out, errs := &bounded{}, &bounded{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(conf), out, errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it did not end in %s", patience)
		}
		return nil, fail(explain(err, out.Bytes(), errs.Bytes()))
	}
	return out.Bytes(), nil
}

func (a *Attachment) environment(command string) []string {
	var args []string
	for _, key := range slices.Sorted(maps.Keys(a.Options.Args)) {
		args = append(args, key+"="+a.Options.Args[key])
	}
	return []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + a.Options.Container, "CNI_NETNS=" + a.Options.Netns, "CNI_IFNAME=" + a.Options.Link,
		"CNI_ARGS=" + strings.Join(args, ";"), "CNI_PATH=" + strings.Join(PluginPath(), ":"), "PATH=" + os.Getenv("PATH")}
}

func lookUp(plugin string) (string, error) {
	for _, dir := range PluginPath() {
		path := filepath.Join(dir, plugin)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", &fault.Error{Op: "find", On: plugin, Kind: fault.NotFound}
}

// bounded keeps no more than maxOutput, and takes all.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), maxOutput-b.Len())])
	return len(p), nil
}

// explain is a plugin's error in words: those that it prints as the specification
// says, or what else it has said.
func explain(err error, out, errs []byte) error {
	var said struct {
		Msg     string `json:"msg"`
		Details string `json:"details"`
	}
	if json.Unmarshal(out, &said) == nil && said.Msg != "" {
		if said.Details != "" {
			said.Msg += ": " + said.Details
		}
		return errors.New(oneLine(said.Msg))
	}
	if text := oneLine(string(errs)); text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// oneLine is text that can be shown: short, and without control characters.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.TrimSpace(s))
	return strings.ToValidUTF8(s[:min(len(s), 1000)], "")
}
