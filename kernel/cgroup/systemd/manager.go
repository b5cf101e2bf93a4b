package systemd

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"kiste/fault"
	"kiste/host"
	"kiste/internal/bus"
)

// A Manager is a connection with one instance of systemd.
type Manager struct {
	conn    *bus.Conn
	bus     bool // by a message bus, not by systemd's own socket
	version int
}

// The names of systemd's manager.
const (
	service   = "org.freedesktop.systemd1"
	object    = "/org/freedesktop/systemd1"
	interfac  = "org.freedesktop.systemd1.Manager"
	unitError = "org.freedesktop.systemd1."
)

// Connect connects with the system's instance, or with the user's own: by its
// own socket, which needs no message bus, or else by the bus. It is
// fault.Unsupported where no systemd runs.
func Connect(user bool) (*Manager, error) {
	if !host.Systemd.Have() {
		return nil, &fault.Error{Op: "connect to systemd", Kind: fault.Unsupported, Err: errors.New("this host was not booted with it"), Hint: "leave out --systemd-cgroup, or " + host.Systemd.Remedy}
	}
	var last error = fs.ErrNotExist
	for _, d := range doors(user, os.Getenv) {
		dial := bus.Dial
		if d.bus {
			dial = bus.DialBus
		}
		conn, err := dial(d.path)
		if err != nil {
			last = err
			continue
		}
		m := &Manager{conn: conn, bus: d.bus}
		if err := m.listen(); err != nil {
			conn.Close()
			return nil, err
		}
		return m, nil
	}
	e := &fault.Error{Op: "connect to systemd", Err: last}
	if user {
		e.Hint = `the user's own must run, and be known: "loginctl enable-linger", and XDG_RUNTIME_DIR=/run/user/UID`
	}
	return nil, e
}

// A door is a socket behind which systemd is.
type door struct {
	path string
	bus  bool
}

// doors are where systemd may be, the nearest first. Its own socket serves the
// owner of the instance alone.
func doors(user bool, getenv func(string) string) []door {
	if !user {
		return append([]door{{path: "/run/systemd/private"}}, busDoors(getenv("DBUS_SYSTEM_BUS_ADDRESS"), "/run/dbus/system_bus_socket")...)
	}
	run := getenv("XDG_RUNTIME_DIR")
	if run == "" {
		return busDoors(getenv("DBUS_SESSION_BUS_ADDRESS"), "")
	}
	return append([]door{{path: path.Join(run, "systemd/private")}}, busDoors(getenv("DBUS_SESSION_BUS_ADDRESS"), path.Join(run, "bus"))...)
}

// busDoors reads an address of the D-Bus specification: those of Unix sockets.
func busDoors(address, usual string) []door {
	var out []door
	for one := range strings.SplitSeq(address, ";") {
		kind, options, _ := strings.Cut(one, ":")
		if kind != "unix" {
			continue
		}
		for option := range strings.SplitSeq(options, ",") {
			key, value, _ := strings.Cut(option, "=")
			value, ok := unescape(value)
			switch {
			case !ok:
			case key == "path" && path.IsAbs(value):
				out = append(out, door{value, true})
			case key == "abstract":
				out = append(out, door{"@" + value, true})
			}
		}
	}
	if len(out) == 0 && usual != "" {
		out = append(out, door{usual, true})
	}
	return out
}

// unescape reads %20.
func unescape(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil || n == 0 {
			return "", false
		}
		b.WriteByte(byte(n))
		i += 2
	}
	return b.String(), b.Len() > 0
}

// Close ends the connection.
func (m *Manager) Close() error { return m.conn.Close() }

// listen asks a message bus for the news of jobs. Systemd's own socket brings
// them unasked.
func (m *Manager) listen() error {
	if !m.bus {
		return nil
	}
	_, err := m.conn.Call(bus.Method{Destination: "org.freedesktop.DBus", Path: "/org/freedesktop/DBus", Interface: "org.freedesktop.DBus", Member: "AddMatch"},
		bus.String("type='signal',sender='"+service+"',interface='"+interfac+"',member='JobRemoved',path='"+object+"'"))
	return explain("hear of systemd's jobs", "", err)
}

// call calls a method of the manager.
func (m *Manager) call(member string, args ...bus.Value) ([]bus.Value, error) {
	method := bus.Method{Path: object, Interface: interfac, Member: member}
	if m.bus {
		method.Destination = service
	}
	return m.conn.Call(method, args...)
}

// property reads a text of the manager.
func (m *Manager) property(name string) (string, error) {
	method := bus.Method{Path: object, Interface: "org.freedesktop.DBus.Properties", Member: "Get"}
	if m.bus {
		method.Destination = service
	}
	got, err := m.conn.Call(method, bus.String(interfac), bus.String(name))
	if err != nil || len(got) != 1 || got[0].Type != "v" {
		return "", explain("ask systemd for its", name, err)
	}
	return got[0].List[0].Text, nil
}

// Version is systemd's: 252. It is asked once.
func (m *Manager) Version() (int, error) {
	if m.version != 0 {
		return m.version, nil
	}
	text, err := m.property("Version")
	if err == nil {
		m.version, err = parseVersion(text)
	}
	return m.version, err
}

// parseVersion reads "252", "v245.4-1.fc32" and "255 (255.4-1)".
func parseVersion(text string) (int, error) {
	digits := strings.TrimLeft(text, `"v`)
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i]
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0, &fault.Error{Op: "read version of systemd", On: text, Kind: fault.Invalid}
	}
	return n, nil
}

// Root is the cgroup below which the instance keeps its units: "/", or that of
// the user's instance.
func (m *Manager) Root() (string, error) { return m.property("ControlGroup") }

// Start makes the unit with properties and the processes pids in it, and waits
// until it is there. What a failed unit of that name has left is removed first;
// a unit that is there otherwise is fault.Exists.
func (m *Manager) Start(unit string, properties []Property, pids ...int) error {
	list := make([]bus.Value, len(pids))
	for i, pid := range pids {
		list[i] = bus.Uint32(uint32(pid))
	}
	all := append([]Property{{"PIDs", bus.Array("u", list...)}}, properties...)
	job, err := m.startTransient(unit, all)
	if isError(err, "UnitExists") {
		m.call("ResetFailedUnit", bus.String(unit))
		job, err = m.startTransient(unit, all)
	}
	if err == nil {
		err = m.finish(job)
	}
	if err != nil {
		m.call("ResetFailedUnit", bus.String(unit))
		return explain("start", unit, err)
	}
	return nil
}

func (m *Manager) startTransient(unit string, properties []Property) ([]bus.Value, error) {
	return m.call("StartTransientUnit", bus.String(unit), bus.String("replace"), array(properties), bus.Array("(sa(sv))"))
}

func array(properties []Property) bus.Value {
	list := make([]bus.Value, len(properties))
	for i, p := range properties {
		list[i] = bus.Struct(bus.String(p.Name), bus.Variant(p.Value))
	}
	return bus.Array("(sv)", list...)
}

// finish waits for the end of a job, of which systemd tells.
func (m *Manager) finish(job []bus.Value) error {
	if len(job) != 1 || job[0].Type != "o" {
		return errors.New("systemd did not say which job")
	}
	result := ""
	err := m.conn.Wait(func(s *bus.Signal) bool {
		if s.Member != "JobRemoved" || len(s.Args) != 4 || s.Args[1].Text != job[0].Text {
			return false
		}
		result = s.Args[3].Text
		return true
	})
	if err == nil && result != "done" {
		return errors.New("its job ended as " + strconv.Quote(result))
	}
	return err
}

// Set changes properties of the unit until it ends.
func (m *Manager) Set(unit string, properties []Property) error {
	if len(properties) == 0 {
		return nil
	}
	_, err := m.call("SetUnitProperties", bus.String(unit), bus.Bool(true), array(properties))
	return explain("set properties of", unit, err)
}

// Stop ends the unit and waits until it is gone, with what a failure has left.
// One that is not there is no error.
func (m *Manager) Stop(unit string) error {
	job, err := m.call("StopUnit", bus.String(unit), bus.String("replace"))
	if err == nil {
		err = m.finish(job)
	}
	if isError(err, "NoSuchUnit") {
		err = nil
	}
	m.call("ResetFailedUnit", bus.String(unit)) // mostly there is none
	return explain("stop", unit, err)
}

// Attach moves processes into the unit, below it at sub ("/": itself): systemd
// may where a user may not.
func (m *Manager) Attach(unit, sub string, pids ...int) error {
	list := make([]bus.Value, len(pids))
	for i, pid := range pids {
		list[i] = bus.Uint32(uint32(pid))
	}
	_, err := m.call("AttachProcessesToUnit", bus.String(unit), bus.String(sub), bus.Array("u", list...))
	return explain("move processes into", unit, err)
}

func isError(err error, name string) bool {
	var e *bus.Error
	return errors.As(err, &e) && e.Name == unitError+name
}

// kinds are systemd's and D-Bus's errors that programs tell apart.
var kinds = []struct {
	name string
	kind fault.Kind
}{
	{unitError + "UnitExists", fault.Exists}, {unitError + "NoSuchUnit", fault.NotFound},
	{"org.freedesktop.DBus.Error.AccessDenied", fault.Denied}, {"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", fault.Denied},
	{"org.freedesktop.DBus.Error.InvalidArgs", fault.Invalid}, {"org.freedesktop.DBus.Error.PropertyReadOnly", fault.Invalid}, {"org.freedesktop.DBus.Error.UnknownProperty", fault.Invalid},
	{"org.freedesktop.DBus.Error.ServiceUnknown", fault.Unavailable},
}

func explain(op, on string, err error) error {
	if err == nil {
		return nil
	}
	e := &fault.Error{Op: op, On: on, Err: err}
	var answer *bus.Error
	if errors.As(err, &answer) {
		for _, k := range kinds {
			if k.name == answer.Name {
				e.Kind = k.kind
			}
		}
	}
	if e.Kind == fault.Denied && os.Geteuid() != 0 {
		e.Hint = "only root speaks with the system's instance: as a user, leave root's --root and --systemd-cgroup alone, or let the user's own instance do it"
	}
	return e
}
