package engine

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"kiste/container/bundle"
	"kiste/container/logfile"
	"kiste/container/monitor"
	"kiste/container/relay"
	"kiste/fault"
	"kiste/internal/sys"
)

// A driver is where output can go, and which options that takes.
type driver struct {
	name    string
	options []string
	// Of files; the sizes are Docker's defaults.
	maxSize  int64
	maxFiles int
	compress bool

	// relay sends it elsewhere; nil: it goes into files, or nowhere.
	relay func(*Engine, *Container) (relay.Options, error)
	// socket is what must be there before a start, by the options; "": nothing.
	socket func(options map[string]string) string
	// read reads it back from there; nil: nobody can.
	read func(*Engine, *Container, logfile.Selection, func(*logfile.Entry) error) error
}

func drivers() []driver {
	sizes := []string{"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"}
	return []driver{
		{name: "local", options: sizes, maxSize: 20 << 20, maxFiles: 5, compress: true},
		{name: "json-file", options: sizes, maxFiles: 1},
		{name: "journald", options: relayed(), relay: (*Engine).toJournal, socket: func(map[string]string) string { return journalSocket }, read: (*Engine).readJournal},
		{name: "syslog", options: relayed("syslog-address", "syslog-facility", "syslog-format"), relay: (*Engine).toSyslog, socket: syslogSocket},
		{name: "none"},
	}
}

// driverNames are those of the drivers, sorted.
func driverNames() (names []string) {
	for _, d := range drivers() {
		names = append(names, d.name)
	}
	slices.Sort(names)
	return names
}

func driverOf(w bundle.Log) (driver, error) {
	name := w.Driver
	if name == "" {
		name = "local"
	}
	for _, d := range drivers() {
		if d.name == name {
			return d, nil
		}
	}
	return driver{}, &fault.Error{Op: "use log driver", On: name, Kind: fault.Invalid, Err: fmt.Errorf("logger: no log driver named '%s' is registered", name), Hint: "there are: " + strings.Join(driverNames(), ", ")}
}

func badLogOption(key, value string, err error) error {
	return &fault.Error{Op: "use --log-opt", On: key + "=" + value, Kind: fault.Invalid, Err: err}
}

// check refuses options that the driver does not know.
func (d driver) check(options map[string]string) error {
	for key, value := range options {
		if !slices.Contains(d.options, key) {
			return badLogOption(key, value, fmt.Errorf("unknown log opt '%s' for %s log driver", key, d.name))
		}
	}
	return nil
}

// logOptions are those of a container's log file; ok is false where it has none.
func (e *Engine) logOptions(c *Container) (o logfile.Options, ok bool, err error) {
	d, err := driverOf(c.Wishes.Log)
	if err == nil && d.name != "none" {
		err = d.check(c.Wishes.Log.Options)
	}
	if err != nil || d.name == "none" || d.relay != nil {
		return o, false, err
	}
	o = logfile.Options{Dir: e.Store.Container(c.ID), Format: d.name, MaxSize: d.maxSize, MaxFiles: d.maxFiles, Attrs: logAttrs(c)}
	compress := d.compress
	for key, value := range c.Wishes.Log.Options {
		switch key {
		case "max-size":
			if o.MaxSize, err = bundle.ParseSize(value); err == nil && o.MaxSize <= 0 && value != "-1" {
				err = errors.New("max-size must be a positive number")
			}
		case "max-file":
			if o.MaxFiles, err = strconv.Atoi(value); err == nil && o.MaxFiles < 1 {
				err = errors.New("max-file cannot be less than 1")
			}
		case "compress":
			compress, err = strconv.ParseBool(value)
		}
		if err != nil {
			return o, true, badLogOption(key, value, err)
		}
	}
	o.Decompress = e.decompress
	if compress {
		o.Compress = e.compress
	}
	return o, true, nil
}

// Hidden commands of kisted, which has the library that every start of kiste
// would pay for: from standard input to standard output.
const (
	CompressCommand   = "__compress"
	DecompressCommand = "__decompress"
)

// A squeeze is kisted at work between a pipe of ours and a file.
type squeeze struct {
	*os.File // our end of the pipe
	cmd      *exec.Cmd
}

// Close waits until all has gone through.
func (s *squeeze) Close() error { return errors.Join(s.File.Close(), s.cmd.Wait()) }

func (e *Engine) compress(to io.Writer) (io.WriteCloser, error) {
	return e.squeeze(CompressCommand, nil, to)
}

func (e *Engine) decompress(from io.Reader) (io.ReadCloser, error) {
	return e.squeeze(DecompressCommand, from, nil)
}

// squeeze starts a command of kisted that reads from or writes to the file, and
// a pipe of which the caller has the other end.
func (e *Engine) squeeze(command string, from io.Reader, to io.Writer) (*squeeze, error) {
	if e.Kisted == nil {
		return nil, &fault.Error{Op: "compress log", Kind: fault.Unsupported, Err: errors.New("nobody says where kisted is")}
	}
	program, err := e.Kisted()
	if err != nil {
		return nil, err
	}
	r, w, err := sys.Pipe()
	if err != nil {
		return nil, err
	}
	s := &squeeze{w, exec.Command(program, command)}
	theirs := r
	if from != nil {
		s.File, theirs, s.cmd.Stdin, s.cmd.Stdout = r, w, from, w
	} else {
		s.cmd.Stdin, s.cmd.Stdout = r, to
	}
	defer theirs.Close()
	if err := s.cmd.Start(); err != nil {
		s.File.Close()
		return nil, err
	}
	return s, nil
}

// logAttrs are the labels and variables that --log-opt asks for, and the tag.
func logAttrs(c *Container) map[string]string {
	o, attrs := c.Wishes.Log.Options, map[string]string{}
	if tag := o["tag"]; tag != "" {
		attrs["tag"], _ = c.tag(tag) // setLog has refused what is none
	}
	for _, key := range strings.Split(o["labels"], ",") {
		if v, ok := c.Result.Labels[key]; ok {
			attrs[key] = v
		}
	}
	for _, key := range strings.Split(o["env"], ",") {
		for _, v := range c.Result.Spec.Process.Env {
			if name, value, _ := strings.Cut(v, "="); name == key {
				attrs[key] = value
			}
		}
	}
	if len(attrs) == 0 {
		return nil
	}
	return maps.Clone(attrs)
}

// setLog checks what the container's wishes say about its log.
func (e *Engine) setLog(c *Container) error {
	o, ok, err := e.logOptions(c)
	if err != nil {
		return err
	}
	if tag := c.Wishes.Log.Options["tag"]; tag != "" {
		if _, err := c.tag(tag); err != nil {
			return badLogOption("tag", tag, err)
		}
	}
	c.LogPath = ""
	if ok {
		c.LogPath = o.Path()
		return nil
	}
	return e.checkRelay(c)
}

// openLog opens the log for its writer; nil where there is none. Later: when
// something is written, so that a container that runs is kept whatever the log
// has.
func (e *Engine) openLog(c *Container, later bool) (monitor.Log, io.Closer, error) {
	if r, err := e.relayOf(c); err != nil || r != nil {
		return r, r, err
	}
	o, ok, err := e.logOptions(c)
	if err != nil || !ok {
		return nil, io.NopCloser(nil), err
	}
	open := logfile.Create
	if later {
		open = logfile.Later
	}
	w, err := open(o)
	if err != nil {
		return nil, nil, err
	}
	return w, w, nil
}

// Logs reads the log of a container, entry by entry. Where it has none it is
// fault.Unsupported.
func (e *Engine) Logs(c *Container, s logfile.Selection, each func(*logfile.Entry) error) error {
	o, ok, err := e.logOptions(c)
	if err != nil {
		return err
	}
	if d, _ := driverOf(c.Wishes.Log); d.read != nil {
		return d.read(e, c, s, each)
	}
	if !ok {
		return &fault.Error{Op: "read log", On: c.Name, Kind: fault.Unsupported, Err: errors.New("configured logging driver does not support reading"), Hint: "run it with --log-driver local"}
	}
	if !c.Lasting {
		return &fault.Error{Op: "read log", On: c.Name, Kind: fault.Unsupported, Err: errors.New("whoever started it has its output"), Hint: "run it without --rm, or with -d"}
	}
	if _, err := os.Lstat(o.Path()); errors.Is(err, os.ErrNotExist) && s.Follow == nil {
		return nil // it has not been started
	}
	return logfile.Read(o, s, each)
}
