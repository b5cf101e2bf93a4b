package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"kiste/container/bundle"
	"kiste/container/logfile"
	"kiste/container/relay"
	"kiste/fault"
	"kiste/internal/sys"
)

// relayed are the options of drivers that send entries elsewhere, with their
// own.
func relayed(own ...string) []string {
	return append([]string{"labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"}, own...)
}

// journalSocket is where journald takes messages: sd_journal_print(3).
const journalSocket = "/run/systemd/journal/socket"

// relayOptions are where and how the container's entries are sent; ok is false
// where they are not.
func (e *Engine) relayOptions(c *Container) (o relay.Options, ok bool, err error) {
	d, err := driverOf(c.Wishes.Log)
	if err != nil || d.relay == nil {
		return o, false, err
	}
	if o, err = d.relay(e, c); err != nil {
		return o, true, err
	}
	o.Name, o.Patience = d.name, time.Second
	options := c.Wishes.Log.Options
	switch mode := options["mode"]; mode {
	case "", "non-blocking":
	case "blocking":
		o.Wait = true
	default:
		return o, true, badLogOption("mode", mode, errors.New("logger: logging mode not supported"))
	}
	if size := options["max-buffer-size"]; size != "" {
		n, err := bundle.ParseSize(size)
		if err == nil && n <= 0 {
			err = errors.New("want a size above 0")
		}
		if err != nil {
			return o, true, badLogOption("max-buffer-size", size, err)
		}
		o.Limit = int(min(n, 1<<30))
	}
	return o, true, nil
}

// checkRelay finds out before a start what would keep entries from being sent. A
// container that runs goes on without who listens.
func (e *Engine) checkRelay(c *Container) error {
	_, ok, err := e.relayOptions(c)
	if err != nil || !ok {
		return err
	}
	d, _ := driverOf(c.Wishes.Log)
	path := d.socket(c.Wishes.Log.Options)
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	if err == nil && info.Mode()&os.ModeSocket == 0 {
		err = errors.New("it is no socket")
	}
	if err != nil {
		return &fault.Error{Op: "use log driver", On: d.name, Kind: fault.Unavailable, Err: fmt.Errorf("%s is not enabled on this host: %w", d.name, err), Hint: "--log-driver local, or start it"}
	}
	return nil
}

// syslogSocket is the socket of a server of this host; "": it is another's.
func syslogSocket(options map[string]string) string {
	scheme, path, ok := strings.Cut(orElse(options["syslog-address"], localSyslog), "://")
	if !ok || scheme != "unix" && scheme != "unixgram" {
		return ""
	}
	return path
}

const localSyslog = "unix:///dev/log"

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// relayOf begins to send; nil where the log goes elsewhere.
func (e *Engine) relayOf(c *Container) (*relay.Relay, error) {
	o, ok, err := e.relayOptions(c)
	if err != nil || !ok {
		return nil, err
	}
	return relay.Open(o), nil
}

// toJournal sends to journald, with the fields that Docker's driver gives.
func (e *Engine) toJournal(c *Container) (relay.Options, error) {
	tag, err := c.tag(orElse(c.Wishes.Log.Options["tag"], defaultTag))
	if err != nil {
		return relay.Options{}, badLogOption("tag", c.Wishes.Log.Options["tag"], err)
	}
	fields := map[string]string{}
	for name, value := range logAttrs(c) {
		if name != "tag" {
			fields[name] = value
		}
	}
	for name, value := range map[string]string{"CONTAINER_ID": short(c.ID), "CONTAINER_ID_FULL": c.ID, "CONTAINER_NAME": c.Name, "CONTAINER_TAG": tag, "IMAGE_NAME": c.ImageName, "SYSLOG_IDENTIFIER": tag} {
		fields[name] = value
	}
	return relay.Options{Dial: func() (*os.File, error) { return sys.DialUnixPacket(journalSocket) }, Format: relay.Journal(fields)}, nil
}

// defaultTag is what a tag is where nobody says otherwise.
const defaultTag = "{{.ID}}"

// tag fills in a tag: of Docker's template its fields alone.
func (c *Container) tag(text string) (string, error) {
	image := strings.TrimPrefix(c.ImageID, "sha256:")
	for _, f := range []struct{ name, value string }{
		{"ID", short(c.ID)}, {"FullID", c.ID}, {"Name", c.Name}, {"ImageName", c.ImageName}, {"ImageID", short(image)}, {"ImageFullID", c.ImageID}, {"DaemonName", "kiste"},
	} {
		text = strings.ReplaceAll(text, "{{."+f.name+"}}", f.value)
	}
	if strings.Contains(text, "{{") {
		return "", errors.New("a tag may have {{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageName}}, {{.ImageID}}, {{.ImageFullID}} and {{.DaemonName}}, and no other templates")
	}
	if strings.ContainsAny(text, "\n\x00") {
		return "", errors.New("a tag is one line")
	}
	return text, nil
}

// toSyslog sends to a syslog server, by default that of this host.
func (e *Engine) toSyslog(c *Container) (relay.Options, error) {
	options := c.Wishes.Log.Options
	tag, err := c.tag(orElse(options["tag"], defaultTag))
	if err != nil {
		return relay.Options{}, badLogOption("tag", options["tag"], err)
	}
	s := relay.Syslog{Facility: options["syslog-facility"], Format: options["syslog-format"], Host: hostName(), Tag: tag, PID: c.State.PID}
	format, err := s.Messages()
	if err != nil {
		return relay.Options{}, badLogOption("syslog-facility, syslog-format", s.Facility+", "+s.Format, err)
	}
	address := options["syslog-address"]
	dial, err := e.syslogDial(address)
	if err != nil {
		return relay.Options{}, badLogOption("syslog-address", address, err)
	}
	return relay.Options{Dial: dial, Format: format}, nil
}

// syslogDial is how an address is reached: unix://PATH, udp://HOST[:PORT],
// tcp://HOST[:PORT]; empty: /dev/log.
func (e *Engine) syslogDial(address string) (func() (*os.File, error), error) {
	scheme, where, ok := strings.Cut(orElse(address, localSyslog), "://")
	switch {
	case !ok || where == "":
		return nil, errors.New("unsupported format: want unix://PATH, udp://HOST:PORT or tcp://HOST:PORT")
	case scheme == "unix" || scheme == "unixgram":
		return func() (*os.File, error) { return dialLocal(where) }, nil
	case scheme == "udp" || scheme == "tcp":
		if !hasPort(where) {
			where += ":514"
		}
		return func() (*os.File, error) { return e.connect(scheme, where) }, nil
	case scheme == "tcp+tls":
		return nil, errors.New("tcp+tls is not supported: let a syslog server of this host pass messages on")
	}
	return nil, fmt.Errorf("unsupported scheme: '%s'", scheme)
}

// hasPort reports whether an address has a port behind its host, which may be an
// IPv6 address in brackets.
func hasPort(address string) bool {
	i := strings.LastIndexByte(address, ':')
	return i > strings.LastIndexByte(address, ']') && (strings.HasPrefix(address, "[") || strings.Count(address, ":") == 1)
}

// dialLocal connects with a socket of datagrams, or of a stream where it is one.
func dialLocal(path string) (*os.File, error) {
	f, err := sys.DialUnixPacket(path)
	if err != nil {
		if stream, bad := sys.DialUnix(path); bad == nil {
			return stream, nil
		}
	}
	return f, err
}

// ConnectCommand is the hidden command of kisted that connects with a server:
// NETWORK ADDRESS, and sends the descriptor over its standard input, or says
// there why it has none.
const ConnectCommand = "__connect"

// connect has kisted connect, which knows names and addresses.
func (e *Engine) connect(network, address string) (*os.File, error) {
	if e.Kisted == nil {
		return nil, errors.New("nobody says where kisted is")
	}
	program, err := e.Kisted()
	if err != nil {
		return nil, err
	}
	ours, theirs, err := sys.SeqPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	cmd := exec.Command(program, ConnectCommand, network, address)
	cmd.Stdin = theirs
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, err
	}
	defer cmd.Wait()
	said := make([]byte, 1<<10)
	n, fds, err := sys.ReceiveFDs(ours, said)
	switch {
	case err != nil:
		return nil, err
	case len(fds) == 1:
		return sys.Watched(fds[0], address)
	}
	for _, fd := range fds {
		sys.Close(fd)
	}
	return nil, errors.New(strings.TrimSpace(string(said[:n])))
}

// readJournal asks journalctl for the entries of a container.
func (e *Engine) readJournal(c *Container, s logfile.Selection, each func(*logfile.Entry) error) error {
	program, err := exec.LookPath("journalctl")
	if err != nil {
		return &fault.Error{Op: "read log", On: c.Name, Kind: fault.Unsupported, Err: errors.New("journalctl, which reads journald's files, is not installed")}
	}
	j := journal{program: program, id: c.ID, s: s, each: each, attrs: map[string]string{}}
	for name := range logAttrs(c) {
		j.attrs[relay.FieldName(name)] = name
	}
	if err := j.read(); err != nil || s.Follow == nil {
		return err
	}
	for ended := false; !ended; {
		select {
		case <-s.Stop:
			return nil
		case <-time.After(journalPause):
		}
		ended = s.Follow()
		if err := j.read(); err != nil {
			return err
		}
	}
	return nil
}

// journalPause is how often the journal is asked for more.
const journalPause = 300 * time.Millisecond

// A journal is read in parts: what is new since the last time.
type journal struct {
	program, id string
	s           logfile.Selection
	attrs       map[string]string
	each        func(*logfile.Entry) error
	cursor      string // of the last entry
}

func (j *journal) arguments() []string {
	args := []string{"--output=json", "--all", "--quiet", "--no-pager"}
	switch {
	case j.cursor != "":
		args = append(args, "--after-cursor="+j.cursor)
	case j.s.Tail >= 0:
		args = append(args, "--lines="+strconv.Itoa(j.s.Tail))
	}
	moment := func(option string, t time.Time) {
		if !t.IsZero() {
			args = append(args, fmt.Sprintf("%s=@%d.%06d", option, t.Unix(), t.Nanosecond()/1000))
		}
	}
	if j.cursor == "" {
		moment("--since", j.s.Since)
	}
	moment("--until", j.s.Until)
	return append(args, "CONTAINER_ID_FULL="+j.id)
}

func (j *journal) read() error {
	cmd := exec.Command(j.program, j.arguments()...)
	var said strings.Builder
	cmd.Stderr = &limited{to: &said, left: 4 << 10}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return &fault.Error{Op: "start", On: j.program, Err: err}
	}
	err = relay.ReadJournal(out, j.attrs, func(e *logfile.Entry, cursor string) error {
		j.cursor = cursor
		return j.each(e)
	})
	out.Close()
	if ended := cmd.Wait(); err == nil && ended != nil && said.Len() > 0 {
		err = &fault.Error{Op: "read journal", Kind: fault.Unavailable, Err: errors.New(strings.TrimSpace(said.String()))}
	}
	return err
}

// limited passes so many bytes on, and drops the rest.
type limited struct {
	to   io.Writer
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	part := b[:min(len(b), l.left)]
	l.left -= len(part)
	_, err := l.to.Write(part)
	return len(b), err
}
