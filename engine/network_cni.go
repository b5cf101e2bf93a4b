package engine

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"kiste/container/bundle"
	"kiste/engine/cni"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/network"
	"kiste/store"
)

// Networks by plugins of the Container Network Interface: a container names one as
// any other, and there is no document of it, but the files of /etc/cni/net.d.
// Plugins are called while the container's process waits in its network, and when
// it has ended. What they gave is kept in the container's lasting directory, since
// addresses that a plugin has leased outlive a reboot.

// cniDriver is the driver of such networks.
const cniDriver = "cni"

// cniNetworks are those of the configurations, for listings.
func cniNetworks() (all []*Network, bad []error) {
	lists, bad := cni.Lists()
	for _, l := range lists {
		all = append(all, &Network{ID: cniID(l.Name), Name: l.Name, Driver: cniDriver})
	}
	return all, bad
}

// cniID is an id that follows from the name.
func cniID(name string) string {
	id := hex.EncodeToString([]byte(cniDriver + name))
	return (id + strings.Repeat("0", 64))[:64]
}

// plugged is a container's place on a network of plugins; nil: there is none of
// the name.
func plugged(wish bundle.NetworkWish) *inspect.Endpoint {
	if _, err := cni.Find(wish.Name); err != nil {
		return nil
	}
	return &inspect.Endpoint{Wish: wish, Network: cniID(wish.Name), Name: wish.Name, Driver: cniDriver}
}

// cniText is what is served by plugins, in words; empty: nothing.
func (p *Prepared) cniText() string {
	var names []string
	for _, at := range p.Plugged {
		names = append(names, at.Name)
	}
	if len(names) == 0 {
		return ""
	}
	return "the CNI plugins of " + strings.Join(names, ", ")
}

func (e *Engine) attachments(id string) string { return filepath.Join(e.Store.Container(id), "cni") }

// plug brings the process pid, which waits, onto its networks of plugins.
func (p *Prepared) plug(pid int) error {
	if err := p.e.unplug(p.ID); err != nil { // of a start that was killed
		return err
	}
	for i := range p.Plugged {
		at := &p.Plugged[i]
		at.Clear()
		at.Link = p.freeLink("eth")
		if err := p.plugOne(at, pid); err != nil {
			return errors.Join(err, p.e.unplug(p.ID))
		}
	}
	return nil
}

func (p *Prepared) plugOne(at *inspect.Endpoint, pid int) error {
	l, err := cni.Find(at.Name)
	if err != nil {
		return err
	}
	o := cni.Options{Container: p.ID, Netns: fmt.Sprintf("/proc/%d/ns/net", pid), Link: at.Link}
	if err := p.askPlugins(at, &o); err != nil {
		return err
	}
	// Before anything is done, so that it is undone whoever is killed.
	if err := p.e.keepAttachment(&cni.Attachment{List: l, Options: o}); err != nil {
		return err
	}
	a, r, err := cni.Add(l, o)
	if err != nil {
		return err
	}
	if err := p.e.keepAttachment(a); err != nil {
		return errors.Join(err, a.Del())
	}
	at.ID = newID()
	for _, link := range r.Links {
		if link.Inside {
			at.MAC = link.MAC
		}
	}
	var own []string
	for _, ip := range r.IPs {
		if ip.Address.Addr().Is4() {
			at.IP, at.Gateway = ip.Address.String(), text(ip.Gateway)
		} else {
			at.IP6, at.Gateway6 = ip.Address.String(), text(ip.Gateway)
		}
		own = append(own, ip.Address.Addr().String())
	}
	return p.tellPlugged(own, r.DNS)
}

func text(a network.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// askPlugins says what the container asks for: addresses and a MAC address, ports
// where there is no other network that has them, and a rate.
func (p *Prepared) askPlugins(at *inspect.Endpoint, o *cni.Options) error {
	w := &at.Wish
	o.Capabilities, o.Args = map[string]any{}, map[string]string{}
	var ips []string
	for _, ip := range []string{w.IP, w.IP6} {
		if ip != "" {
			ips = append(ips, ip)
			o.Args["IgnoreUnknown"], o.Args["IP"] = "1", ip
		}
	}
	if len(ips) > 0 {
		o.Capabilities["ips"] = ips
	}
	if w.MAC != "" {
		o.Capabilities["mac"] = w.MAC
		o.Args["IgnoreUnknown"], o.Args["MAC"] = "1", w.MAC
	}
	if limits := bandwidth(p.Wishes.Rates()); len(limits) > 0 {
		o.Capabilities["bandwidth"] = limits
	}
	if len(p.Endpoints) > 0 || at != &p.Plugged[0] {
		return nil
	}
	ports := p.Wishes.Published(p.Image)
	if len(ports) == 0 {
		return nil
	}
	if err := findPorts(ports); err != nil {
		return err
	}
	var maps []cni.PortMapping
	for _, port := range ports {
		maps = append(maps, cni.PortMapping{HostPort: int(port.Host), ContainerPort: int(port.Container), Protocol: port.Proto, HostIP: port.HostIP})
	}
	o.Capabilities["portMappings"] = maps
	p.Bindings = bindingsOf(ports)
	return nil
}

// tellPlugged writes what plugins gave into the container's files.
func (p *Prepared) tellPlugged(own []string, dns cni.DNS) error {
	if file := p.FilePaths["/etc/hosts"]; file != "" && len(own) > 0 {
		var lines []byte
		for _, ip := range own {
			lines = append(lines, p.hostsLine(ip)...)
		}
		if err := appendTo(file, lines); err != nil {
			return err
		}
	}
	if file := p.FilePaths["/etc/resolv.conf"]; file != "" && len(dns.Nameservers) > 0 && len(p.Wishes.DNS) == 0 {
		return os.WriteFile(file, servedBy([]byte(resolvText(dns)), dns.Nameservers...), 0o644)
	}
	return nil
}

func appendTo(file string, lines []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(lines)
	return errors.Join(err, f.Close())
}

// resolvText is what else than servers a plugin says of resolv.conf(5): words
// without line feeds.
func resolvText(dns cni.DNS) string {
	clean := func(words []string) string { return strings.Join(strings.Fields(strings.Join(words, " ")), " ") }
	text := ""
	if s := clean(dns.Search); s != "" {
		text += "search " + s + "\n"
	}
	if s := clean(dns.Options); s != "" {
		text += "options " + s + "\n"
	}
	return text
}

func (e *Engine) keepAttachment(a *cni.Attachment) error {
	dir := e.attachments(a.Options.Container)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	b, err := store.Encode(a)
	if err != nil {
		return err
	}
	return store.WriteFile(filepath.Join(dir, a.Options.Link+"."+a.List.Name), b)
}

// maxAttachment bounds what is read of one, in bytes.
const maxAttachment = 4 << 20

// eachAttachment lets do see the files of a container's attachments, and those
// that can be read of them: a nil one is of who was killed while writing.
func (e *Engine) eachAttachment(id string, do func(file string, a *cni.Attachment) error) error {
	dir := e.attachments(id)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	bad := []error{err}
	for _, d := range entries {
		file := filepath.Join(dir, d.Name())
		b, err := sys.ReadFile(file, maxAttachment)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		a := &cni.Attachment{}
		if err := store.Decode(b, a); err != nil || a.List == nil {
			a = nil
		}
		bad = append(bad, do(file, a))
	}
	return errors.Join(bad...)
}

// unplug takes a container that has ended from its networks of plugins. What
// could not be undone is told as an event too, and tried again the next time.
func (e *Engine) unplug(id string) error {
	return e.eachAttachment(id, func(file string, a *cni.Attachment) error {
		if a == nil {
			return os.Remove(file)
		}
		a.Options.Netns = "" // it has ended with the container
		if err := a.Del(); err != nil {
			n := &Network{ID: cniID(a.List.Name), Name: a.List.Name, Driver: cniDriver}
			e.EmitNetwork("disconnect", n, map[string]string{"container": id, "error": err.Error()})
			return &fault.Error{Op: "leave CNI network", On: a.List.Name, Err: err}
		}
		return os.Remove(file)
	})
}

// leavePlugged is unplug, with what fails written down: the next start, gc and
// rm try again.
func (e *Engine) leavePlugged(c *Container) error {
	c.State.Unplugged = ""
	err := e.unplug(c.ID)
	if err != nil {
		c.State.Unplugged = err.Error()
	}
	return err
}

// checkPlugged is what plugins find wrong with the networks of a container that
// runs.
func (e *Engine) checkPlugged(c *Container) error {
	if len(c.Plugged) == 0 || !c.runs() {
		return nil
	}
	return e.eachAttachment(c.ID, func(_ string, a *cni.Attachment) error {
		if a == nil {
			return nil
		}
		return a.Check()
	})
}

// bandwidth is rates in bits a second, as the plugin bandwidth takes them.
func bandwidth(sends, receives network.Rate) map[string]uint64 {
	limits := map[string]uint64{}
	for way, rate := range map[string]network.Rate{"egress": sends, "ingress": receives} {
		if bits := 8 * uint64(rate); bits > 0 {
			limits[way+"Rate"], limits[way+"Burst"] = bits, max(bits/100, 16<<13)
		}
	}
	return limits
}
